import { AssertionError } from '../../shared/assert.ts'
import { accept } from '../../shared/protocol/acceptor.ts'
import { newHost, step } from '../../shared/protocol/step.ts'
import type { DataNode, Effect, EventBody, Message, NodeId } from '../../shared/protocol/types.ts'
import { Violation } from '../simulation/checkers/check.ts'
import { isDecree, show } from '../simulation/checkers/register-truth.ts'
import { showEffect, showEvent } from '../simulation/show.ts'
import { streams, viewOf } from './database.ts'
import { post } from './network.ts'
import { dataNodes, type HostWorld, otherOf, searchTiming, type World } from './pair.ts'
import { demandChosen, demandGrant, demandKept, demandMeant, demandOnDisk, demandPatience, stored } from './truth.ts'

/**
 * A world in the making: hosts may be changed in place here and nowhere else. A durable write has a moment before and
 * one after it; `crashAt` names the one at which the agent dies, with everything that was still to be done.
 */
export interface Draft extends World {
  hosts: { a: HostWorld; b: HostWorld }
  /** Moments so far at which the agent could have died. */
  moments: number
  crashAt: number
  /** What happened, for people; null while searching. */
  log: string[] | null
}

export const draftOf = (world: World, crashAt: number, log: string[] | null): Draft => ({
  ...world,
  hosts: { a: { ...world.hosts.a }, b: { ...world.hosts.b } },
  moments: 0,
  crashAt,
  log,
})

/** The core of this host takes one event, and what it asks for is done at once and in order. */
export function give(d: Draft, node: DataNode, body: EventBody): void {
  const host = d.hosts[node]
  if (host.agent !== 'up') return
  const event = { now: d.now, random: 0, ...body }
  const before = host.core
  const result = stepOf(node, before, event)
  host.core = result.state
  if (d.log !== null) {
    if (event.event !== 'gate') d.log.push(`  ${node} < ${showEvent(event)}`)
    for (const why of result.why) d.log.push(`  ${node} = ${why}`)
  }
  demandMeant(before, result.state, event)
  host.candidacy = demandPatience(d, node, result.state, before)
  const reports: EventBody[] = []
  for (const [i, effect] of result.effects.entries()) {
    if (d.log !== null) d.log.push(`  ${node} > ${showEffect(effect)}`)
    if (effect.do === 'persist' && i > 0 && dies(d, node)) return
    carryOut(d, node, effect, reports)
    const last = i === result.effects.length - 1
    if ((effect.do === 'persist' || last) && dies(d, node)) return
  }
  for (const report of reports) give(d, node, report)
}

function stepOf(node: DataNode, before: HostWorld['core'], event: Parameters<typeof step>[1]) {
  try {
    return step(before, event)
  } catch (error) {
    if (error instanceof AssertionError) throw new Violation('assertion', `${node}: ${error.message}`)
    throw error
  }
}

function dies(d: Draft, node: DataNode): boolean {
  if (d.moments++ !== d.crashAt) return false
  crash(d, node)
  return true
}

export function crash(d: Draft, node: DataNode): void {
  const host = d.hosts[node]
  host.agent = 'down'
  host.op = null
  d.log?.push(`  ${node}   the agent dies`)
}

export function start(d: Draft, node: DataNode): void {
  const host = d.hosts[node]
  host.agent = 'up'
  host.nonces += 1
  host.op = null
  host.core = newHost({ node, timing: searchTiming })
  host.quarantineUntil = d.now + searchTiming.leaseMs
  const { lastOwn, known } = host.disk
  host.candidacy = lastOwn > (known?.ballot ?? 0) && known?.value.primary === otherOf[node] ? lastOwn : 0
  give(d, node, {
    event: 'start',
    boot: `${node}.boot${host.boots}`,
    nonce: host.nonces,
    durable: host.disk,
    gate: reportOf(d, node),
    view: viewOf(d, node),
    witness: host.wanted,
  })
}

function reportOf(d: Draft, node: DataNode) {
  const { gate } = d.hosts[node]
  const open = gate.state === 'open' && gate.until > d.now
  return open
    ? ({ state: 'open', expiresUntil: gate.until } as const)
    : { state: gate.state === 'closed' ? ('closed' as const) : ('frozen' as const), expiresUntil: 0 }
}

function carryOut(d: Draft, node: DataNode, effect: Effect, reports: EventBody[]): void {
  const host = d.hosts[node]
  switch (effect.do) {
    case 'persist': {
      demandKept(host.disk, effect.durable, node)
      host.disk = effect.durable
      d.truth = stored(d, effect.durable)
      demandChosen(d, node, effect.durable)
      followForce(d, node)
      const { seq } = effect
      host.core = {
        ...host.core,
        persist: {
          ...host.core.persist,
          seq: Math.max(seq, host.core.persist.seq),
          done: seq,
          pending: [],
          hung: false,
        },
      }
      return
    }
    case 'send':
      demandOnDisk(host.disk, node, effect.message)
      sendFrom(d, node, effect.to, effect.message)
      return
    case 'gate':
      if (effect.set === 'open') {
        demandGrant(d, node, effect.until)
        host.gate = { state: 'open', until: effect.until }
      } else host.gate = { state: effect.set, until: 0 }
      reports.push({ event: 'gate', seq: effect.seq, report: reportOf(d, node) })
      return
    case 'look':
      reports.push({ event: 'view', view: viewOf(d, node) })
      return
    case 'database':
      host.op = { id: effect.id, op: effect.op, held: false }
      return
    case 'exit':
      return crash(d, node)
    default:
  }
}

function sendFrom(d: Draft, node: DataNode, to: NodeId, message: Message): void {
  const sentAt = message.kind === 'heartbeat' ? d.now : 0
  if (message.kind === 'ack') {
    if (message.promise) {
      if (d.hosts[node].candidacy !== 0) throw new Violation('I8', `${node} promises while its candidacy is open`)
      d.hosts[node].promiseUntil = d.now + searchTiming.leaseMs
    }
    const beats = d.hosts[otherOf[node]].core.lease.beats
    post(d, { from: node, to, message, sentAt: beats.find(beat => beat.seq === message.seq)?.sentAt ?? 0 })
    return
  }
  post(d, { from: node, to, message, sentAt })
}

/** What a forced takeover gives up is not asked for any more. */
function followForce(d: Draft, node: DataNode): void {
  const { latest } = d.truth
  if (latest === null || latest.value.gen < 2 || latest.value.primary !== node || !isDecree(latest.ballot)) return
  const { log } = d.hosts[node].database
  d.acked = d.acked.filter(record => log.includes(record))
  d.seen = d.seen.filter(record => log.includes(record))
}

/** A message arrives. */
export function receive(d: Draft, from: NodeId, to: NodeId, message: Message): void {
  if (to !== 'w') {
    give(d, to, { event: 'message', from, message })
    return
  }
  if (message.kind !== 'prepare' && message.kind !== 'accept' && message.kind !== 'cas' && message.kind !== 'read')
    return
  const { former } = d
  const isFormer = message.inc === former?.inc
  const result = accept(isFormer ? former : d.witness, message)
  if (d.log !== null) d.log.push(`  w < ${message.kind}, ${result.reply?.kind ?? 'no answer'}`)
  if (result.changed) {
    if (isFormer) d.former = result.state
    else d.witness = result.state
    d.truth = stored(d, result.state)
  }
  if (result.reply !== null) post(d, { from: 'w', to: from, message: result.reply, sentAt: 0 })
}

/** Commits return to their clients. */
export function release(d: Draft, node: DataNode, records: readonly number[]): void {
  const peerLog = d.hosts[otherOf[node]].database.log
  const { gate } = d.hosts[node]
  const latest = d.truth.latest?.value
  for (const record of records) {
    if (gate.state !== 'open' || gate.until <= d.now) continue
    const alone = latest !== undefined && latest.primary === node && !latest.successor
    if (!peerLog.includes(record) && !alone) {
      throw new Violation(
        'I6',
        `${node} acknowledged record ${record} without a copy while the register says ${latest ? show(latest) : 'nothing'}`,
      )
    }
    d.acked = [...d.acked, record]
  }
}

/** The database of this host has changed: both hosts' agents see what they can see of it. */
export function look(d: Draft, node: DataNode): void {
  for (const one of [node, otherOf[node]]) {
    if (one === node || streams(d, node) || streams(d, one) || d.hosts[one].core.database.view.sender !== null)
      give(d, one, { event: 'view', view: viewOf(d, one) })
  }
}

/** Whatever a client could read now must not disappear. */
export function noteSeen(d: Draft): void {
  for (const node of dataNodes) {
    const { gate, database } = d.hosts[node]
    if (gate.state !== 'open' || gate.until <= d.now || database.process !== 'primary') continue
    for (const record of database.log)
      if (!database.waiting.includes(record) && !d.seen.includes(record)) d.seen = [...d.seen, record]
  }
}
