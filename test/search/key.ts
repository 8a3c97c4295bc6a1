/**
 * A state as a row of small integers, the same for states that behave the same: times relative to now and cut where no
 * rule looks further, ballots and versions counted from the lowest in use, request numbers and nonces reduced to
 * whether they still match, messages in any order. The rows are hashed; nothing is ever read back from them.
 */

import { roundOf } from '../../shared/protocol/ballot.ts'
import type { Ballot, Durable, Message } from '../../shared/protocol/types.ts'
import { fillAck, fillCore, fillHeartbeat } from './core-row.ts'
import {
  type Database,
  dataNodes,
  type Flight,
  type HostWorld,
  isUp,
  links,
  searchTiming as t,
  type World,
} from './pair.ts'
import { ballot, filler, flag, future, hash, number, Row, skip, word } from './row.ts'

const fillDisk = filler<Durable>({
  inc: (row, inc) => row.inc(inc),
  promised: ballot,
  acc: (row, acc) => row.accepted(acc),
  known: (row, known) => row.accepted(known),
  lastOwn: ballot,
  resigned: (row, version, disk) =>
    row.put(version !== 0 && version === disk.known?.value.version ? version - row.version : -1),
  confirmedBoot: skip,
  wSeen: (row, seen) => {
    for (const inc of Object.keys(seen).sort()) row.ballot(seen[inc] ?? 0)
  },
  leaseMs: skip,
  maxFlushed: (row, at) => row.put(at.timeline * 64 + at.lsn),
  dataGen: (row, gen) => row.put(gen - row.gen),
  gaveUpGen: (row, gen) => row.put(gen - row.gen),
  overruled: (row, overruled) => {
    row.put(overruled === null ? -1 : overruled.gen - row.gen)
    for (const node of ['a', 'b', 'w'] as const) row.inc(overruled?.voters[node])
  },
})

const fillCluster = filler<Database>({
  process: word,
  log: (row, log) => {
    row.put(log.length)
    for (const record of log) row.put(record)
  },
  timeline: number,
  epoch: (row, epoch) => row.put(epoch - row.epoch),
  names: word,
  inForce: flag,
  follows: (row, epoch) => row.put(epoch - row.epoch),
  waiting: (row, waiting) => row.put(waiting.length),
  waitingAt: (row, at, db) => (db.waiting.length === 0 ? row.put(-1) : row.past(at, t.stallMs)),
})

const fillHost = filler<HostWorld>({
  core: (row, core, host) => (isUp(host) ? fillCore(row, core) : row.put(-1)),
  agent: word,
  boots: (row, boots, host) => row.flag(host.disk.confirmedBoot.endsWith(`boot${boots}`)),
  nonces: skip,
  incs: number,
  wanted: (row, inc) => row.inc(inc),
  disk: (row, disk) => fillDisk(row, disk),
  gate: (row, gate) => {
    word(row, gate.state)
    row.future(gate.until)
  },
  database: (row, database) => fillCluster(row, database),
  op: (row, op) => {
    word(row, op?.op.op ?? '-')
    row.flag(op?.held === true)
  },
  stalled: flag,
  promiseUntil: future,
  quarantineUntil: future,
  candidacy: ballot,
})

function fillMessage(row: Row, { message, from, to, sentAt, held }: Flight): void {
  row.flag(held)
  row.put(from.charCodeAt(0) * 4 + (to.charCodeAt(0) % 4))
  word(row, message.kind)
  switch (message.kind) {
    case 'prepare':
      row.ballot(message.ballot)
      return row.inc(message.inc)
    case 'accept':
      row.ballot(message.ballot)
      row.value(message.value)
      return row.inc(message.inc)
    case 'cas':
      row.ballot(message.ballot)
      row.ballot(message.expect)
      return row.value(message.value)
    case 'promise':
      row.ballot(message.ballot)
      row.ballot(message.acc?.ballot ?? 0)
      return row.inc(message.inc)
    case 'accepted':
      row.ballot(message.ballot)
      return row.inc(message.inc)
    case 'nack':
      row.ballot(message.ballot)
      return row.ballot(message.promised)
    case 'learn':
      return row.ballot(message.ballot)
    case 'heartbeat':
      row.past(sentAt, t.leaseMs)
      row.flag(message.seq > row.killedSeq[from])
      return fillHeartbeat(row, message)
    case 'ack':
      row.past(sentAt, t.leaseMs)
      row.flag(message.seq > row.killedSeq[to])
      return fillAck(row, message)
    case 'resign':
      return row.reign(message.gen, message.epoch, message.version)
    case 'read':
      return row.inc(message.inc)
    case 'state':
      row.ballot(message.promised)
      return row.ballot(message.acc?.ballot ?? 0)
  }
}

const row = new Row()

/** Two 32-bit hashes of the canonical state. */
export function keyOf(world: World): { high: number; low: number } {
  row.size = 0
  row.now = world.now
  prepare(world)
  for (const node of dataNodes) fillHost(row, world.hosts[node])
  const { witness, former } = world
  for (const acceptor of [witness, former]) {
    row.inc(acceptor?.inc)
    row.ballot(acceptor?.promised ?? 0)
    row.ballot(acceptor?.acc?.ballot ?? 0)
  }
  const from = world.truth.latest?.ballot ?? 0
  for (const entry of world.truth.entries) {
    if (entry.accepted.ballot < from) continue
    row.accepted(entry.accepted)
    row.flag(entry.chosen)
    for (const inc of ['a', 'b', 'w']) row.put(entry.by.reduce((n, by) => n + (by.startsWith(inc) ? 1 : 0), 0))
    row.flag(former !== null && entry.by.includes(former.inc))
  }
  for (const link of links) row.flag(world.cuts.includes(link))
  row.put(world.acked.length)
  for (const record of world.acked) row.put(record)
  row.put(world.seen.length)
  for (const record of world.seen) row.put(record)
  for (const item of Object.values(world.budget)) row.put(item)
  let { high, low } = hash(row.cells, 0, row.size)
  const mark = row.size
  for (const flight of world.net) {
    row.size = mark
    fillMessage(row, flight)
    const one = hash(row.cells, mark, row.size)
    high = (high + Math.imul(one.high, 0x9e3779b1)) | 0
    low = (low + Math.imul(one.low, 0x85ebca6b)) | 0
  }
  return { high: high >>> 0, low: low >>> 0 }
}

/** The lowest versions and the round numbers in use. */
function prepare(world: World): void {
  const { latest } = world.truth
  row.version = latest?.value.version ?? 0
  row.epoch = latest?.value.epoch ?? 0
  row.gen = latest?.value.gen ?? 0
  const { rounds, tops } = row
  rounds.length = 0
  tops.length = 0
  const add = (n: number): void => {
    if (n > 0 && !rounds.includes(n)) rounds.push(n)
  }
  const addBallot = (b: Ballot | undefined): void => add(roundOf(b ?? 0))
  for (const node of dataNodes) {
    const { core, disk } = world.hosts[node]
    row.killedSeq[node] = core.vacate?.killedSeq ?? 0
    addBallot(disk.promised)
    addBallot(disk.acc?.ballot)
    addBallot(disk.known?.ballot)
    addBallot(disk.lastOwn)
    const up = isUp(world.hosts[node])
    if (up) {
      add(core.nSeen)
      addBallot(core.round?.ballot)
    }
    const seen = up ? core.nSeen : 0
    tops.push(Math.max(seen, roundOf(disk.promised), roundOf(disk.acc?.ballot ?? 0), roundOf(disk.lastOwn)))
  }
  for (const acceptor of [world.witness, world.former]) {
    addBallot(acceptor?.promised)
    addBallot(acceptor?.acc?.ballot)
  }
  for (const { message } of world.net) addMessage(message, addBallot)
  rounds.sort((x, y) => x - y)
}

function addMessage(message: Message, add: (b: Ballot | undefined) => void): void {
  if ('ballot' in message) add(message.ballot)
  if ('promised' in message) add(message.promised)
  if ('acc' in message) add(message.acc?.ballot)
}
