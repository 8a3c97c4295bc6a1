import { newDurable } from '../../shared/protocol/durable.ts'
import { isPrimary } from '../../shared/protocol/facts.ts'
import { statusOf } from '../../shared/protocol/status.ts'
import type { DataNode, Incarnation } from '../../shared/protocol/types.ts'
import { Violation } from '../simulation/checkers/check.ts'
import { showMessage } from '../simulation/show.ts'
import { carryOut, noDatabase, streams, viewOf } from './database.ts'
import { weed } from './network.ts'
import { type BudgetItem, dataNodes, type Link, links, otherOf, searchTiming, unitMs, type World } from './pair.ts'
import { crash, type Draft, draftOf, give, look, noteSeen, receive, release, start } from './run.ts'
import { demandOneWholeServer } from './truth.ts'

/** Everything that may happen next. What it costs is taken from the budget. */
export type Action =
  | { does: 'time' }
  | { does: 'deliver' | 'hold' | 'duplicate'; index: number }
  | { does: 'done' | 'hold up' | 'replicate' | 'stall' | 'flow' | 'write' | 'start' | 'reboot'; node: DataNode }
  | { does: 'cut' | 'mend'; link: Link }
  | {
      does:
        | 'rest'
        | 'power on'
        | 'stop'
        | 'wake'
        | 'go on'
        | 'lose database'
        | 'wipe'
        | 'switchover'
        | 'force'
        | 'rename'
      node: DataNode
    }

const price: { [does in Action['does']]?: BudgetItem } = {
  write: 'writes',
  cut: 'cuts',
  reboot: 'reboots',
  stop: 'stops',
  'lose database': 'databaseDeaths',
  wipe: 'wipes',
  duplicate: 'duplicates',
  switchover: 'switchovers',
  force: 'forces',
  rename: 'renames',
}

/** A step on the way; a calm world takes the first of them. */
export interface Choice {
  action: Action
  calm: boolean
}
/**
 * What may happen next. In a calm world what is due happens in its turn: messages in the order they were sent, then
 * operations, then replication, and only then time goes on. Whatever is due may be held back instead, and then happens
 * at any time or never; so every order of things can be reached, the likely ones first.
 */
export function choicesOf(world: World): Choice[] {
  const choices: Choice[] = []
  const add: Add = action => choices.push({ action, calm: choices.length === 0 })
  addDue(world, add)
  addHeld(world, add)
  addFaults(world, add)
  return choices
}

type Add = (action: Action) => void

const canReceive = (world: World, to: 'a' | 'b' | 'w'): boolean => to === 'w' || world.hosts[to].agent === 'up'

function addDue(world: World, add: Add): void {
  for (const node of dataNodes) {
    if (world.hosts[node].agent === 'down') {
      add({ does: 'start', node })
      add({ does: 'rest', node })
      return
    }
  }
  const index = world.net.findIndex(flight => !flight.held && canReceive(world, flight.to))
  if (index >= 0) {
    add({ does: 'deliver', index })
    add({ does: 'hold', index })
    return
  }
  for (const node of dataNodes) {
    const { op, agent, stalled } = world.hosts[node]
    if (op !== null && !op.held && agent === 'up') {
      add({ does: 'done', node })
      add({ does: 'hold up', node })
      return
    }
    if (!stalled && behind(world, node)) {
      add({ does: 'replicate', node })
      add({ does: 'stall', node })
      return
    }
  }
  add({ does: 'time' })
}

const behind = (world: World, node: DataNode): boolean =>
  streams(world, node) && world.hosts[node].database.log.length < world.hosts[otherOf[node]].database.log.length

function addHeld(world: World, add: Add): void {
  for (let index = 0; index < world.net.length; index++) {
    const flight = world.net[index]!
    if (flight.held && canReceive(world, flight.to)) add({ does: 'deliver', index })
    if (world.budget.duplicates > 0 && canReceive(world, flight.to) && flight.message.kind !== 'heartbeat')
      add({ does: 'duplicate', index })
  }
  for (const node of dataNodes) {
    const { op, agent, stalled } = world.hosts[node]
    if (op?.held && agent === 'up') add({ does: 'done', node })
    if (stalled) add({ does: 'flow', node })
  }
}

function addFaults(world: World, add: Add): void {
  const { hosts, budget, cuts } = world
  for (const link of links) {
    if (cuts.includes(link)) add({ does: 'mend', link })
    else if (budget.cuts > 0) add({ does: 'cut', link })
  }
  for (const node of dataNodes) {
    const { agent, gate, database } = hosts[node]
    const peer = hosts[otherOf[node]]
    if (agent === 'stopped') {
      add({ does: 'go on', node })
      add({ does: 'wake', node })
    }
    if (agent === 'resting') add({ does: 'start', node })
    if (agent === 'off' && mayPowerOn(world, otherOf[node])) add({ does: 'power on', node })
    const open = gate.state === 'open' && gate.until > world.now
    if (budget.writes > 0 && open && database.process === 'primary') add({ does: 'write', node })
    if (agent === 'up' && budget.stops > 0) add({ does: 'stop', node })
    if (budget.reboots > 0) add({ does: 'reboot', node })
    if (budget.databaseDeaths > 0 && database.process === 'primary') add({ does: 'lose database', node })
    if (budget.wipes > 0 && world.truth.latest?.value.primary !== node) add({ does: 'wipe', node })
    if (budget.switchovers > 0 && agent === 'up' && isPrimary(hosts[node].core)) add({ does: 'switchover', node })
    if (budget.forces > 0 && agent === 'up' && peer.agent === 'off') add({ does: 'force', node })
    if (budget.renames > 0 && world.former !== null) add({ does: 'rename', node })
  }
}

/** The operator's duty: the other host stays off until the forced takeover is sealed. */
function mayPowerOn(world: World, other: DataNode): boolean {
  const { agent, core } = world.hosts[other]
  return agent === 'up' && statusOf(core, world.now).sealed
}

export interface Next {
  world: World
  /** At how many moments of it the agent could have died. */
  moments: number
}

/** The world after this action; throws a Violation. `crashAt`: the agent dies at that moment of it, -1 for none. */
export function after(world: World, action: Action, how: { crashAt: number; log: string[] | null }): Next {
  const d = draftOf(world, how.crashAt, how.log)
  how.log?.push(describe(world, action))
  perform(d, action)
  noteSeen(d)
  demandOneWholeServer(d)
  const item = price[action.does]
  let { budget } = d
  if (item !== undefined) budget = { ...budget, [item]: budget[item] - 1 }
  if (how.crashAt >= 0) budget = { ...budget, crashes: budget.crashes - 1 }
  const { moments, crashAt: _, log: __, ...next } = d
  return { world: { ...next, budget, net: weed(d) }, moments }
}

function perform(d: Draft, action: Action): void {
  switch (action.does) {
    case 'time':
      return passTime(d)
    case 'deliver':
    case 'duplicate': {
      const flight = d.net[action.index]!
      if (action.does === 'deliver') d.net = d.net.filter(one => one !== flight)
      return receive(d, flight.from, flight.to, flight.message)
    }
    case 'done':
      return finishOp(d, action.node)
    case 'hold':
      d.net = d.net.with(action.index, { ...d.net[action.index]!, held: true })
      return
    case 'hold up': {
      const host = d.hosts[action.node]
      if (host.op !== null) host.op = { ...host.op, held: true }
      return
    }
    case 'stall':
    case 'flow':
      d.hosts[action.node].stalled = action.does === 'stall'
      return
    case 'replicate':
      return replicate(d, action.node)
    case 'write':
      return write(d, action.node)
    case 'start':
    case 'power on':
      return start(d, action.node)
    case 'reboot':
      return reboot(d, action.node)
    case 'rest':
      d.hosts[action.node].agent = 'resting'
      return
    case 'cut':
      return recut(d, [...d.cuts, action.link])
    case 'mend':
      return recut(
        d,
        d.cuts.filter(link => link !== action.link),
      )
    case 'stop':
      d.hosts[action.node].agent = 'stopped'
      return
    case 'go on':
      d.hosts[action.node].agent = 'up'
      return give(d, action.node, { event: 'view', view: viewOf(d, action.node) })
    case 'wake':
      return wake(d, action.node)
    case 'lose database':
      d.hosts[action.node].database = { ...d.hosts[action.node].database, process: 'dead', waiting: [], inForce: false }
      return look(d, action.node)
    case 'wipe':
      return wipe(d, action.node)
    case 'switchover': {
      const epoch = d.hosts[action.node].disk.known?.value.epoch ?? 0
      return give(d, action.node, { event: 'operator', command: { command: 'switchover', epoch } })
    }
    case 'force': {
      const { gen, epoch } = d.hosts[action.node].disk.known?.value ?? { gen: 0, epoch: 0 }
      return give(d, action.node, { event: 'operator', command: { command: 'force', gen, epoch, withWitness: true } })
    }
    case 'rename': {
      const { witness, former } = d
      if (former === null) return
      return nameWitness(d, action.node, d.hosts[action.node].wanted === witness.inc ? former.inc : witness.inc)
    }
  }
}

/** In this host's configuration, and told to its agent, where that runs. */
export function nameWitness(d: Draft, node: DataNode, inc: Incarnation): void {
  d.hosts[node].wanted = inc
  give(d, node, { event: 'witness', inc })
}

/** The host was suspended, not only its agent: the hook before it has shut the gate, and the clocks show it. */
function wake(d: Draft, node: DataNode): void {
  const host = d.hosts[node]
  host.agent = 'up'
  host.nonces += 1
  host.gate = { state: 'frozen', until: 0 }
  host.quarantineUntil = d.now + searchTiming.leaseMs
  give(d, node, { event: 'clockJump', nonce: host.nonces })
}

/** Replication hears of it at once. */
function recut(d: Draft, cuts: readonly Link[]): void {
  d.cuts = cuts
  for (const node of dataNodes) give(d, node, { event: 'view', view: viewOf(d, node) })
}

function passTime(d: Draft): void {
  d.now += unitMs
  for (const node of dataNodes) {
    const { gate } = d.hosts[node]
    if (gate.state === 'open' && gate.until <= d.now) d.hosts[node].gate = { state: 'frozen', until: 0 }
  }
  for (const node of dataNodes) give(d, node, { event: 'view', view: viewOf(d, node) })
}

function finishOp(d: Draft, node: DataNode): void {
  const host = d.hosts[node]
  const { op } = host
  if (op === null) return
  const outcome = carryOut(d, node, op.op)
  const before = host.database.log
  host.op = null
  host.database = outcome.database
  if (outcome.database.log !== before) {
    const gone = d.acked.find(record => before.includes(record) && !outcome.database.log.includes(record))
    if (gone !== undefined) throw new Violation('I2', `${node} throws away its copy of the acknowledged record ${gone}`)
  }
  release(d, node, outcome.released)
  give(d, node, { event: 'databaseDone', id: op.id, result: { ...outcome.result, view: viewOf(d, node) } })
  if (d.hosts[node].agent === 'up' || d.crashAt < 0) look(d, otherOf[node])
}

/** The standby flushes one more record; the primary hears of it. */
function replicate(d: Draft, node: DataNode): void {
  const host = d.hosts[node]
  const primary = d.hosts[otherOf[node]]
  const log = primary.database.log.slice(0, host.database.log.length + 1)
  host.database = { ...host.database, log, timeline: primary.database.timeline }
  const { waiting } = primary.database
  const released = waiting.filter(record => log.includes(record))
  if (released.length > 0) {
    const left = waiting.filter(record => !log.includes(record))
    primary.database = { ...primary.database, waiting: left, waitingAt: d.now }
    release(d, otherOf[node], released)
  }
  look(d, node)
}

function write(d: Draft, node: DataNode): void {
  const host = d.hosts[node]
  const { database } = host
  const record = 1 + Math.max(...d.hosts.a.database.log, ...d.hosts.b.database.log)
  const log = [...database.log, record]
  if (database.inForce) {
    const waitingAt = database.waiting.length === 0 ? d.now : database.waitingAt
    host.database = { ...database, log, waiting: [...database.waiting, record], waitingAt }
  } else {
    host.database = { ...database, log }
    release(d, node, [record])
  }
  give(d, node, { event: 'view', view: viewOf(d, node) })
}

export function reboot(d: Draft, node: DataNode): void {
  const host = d.hosts[node]
  crash(d, node)
  host.boots += 1
  host.gate = { state: 'frozen', until: 0 }
  host.database = { ...host.database, process: 'none', inForce: false, waiting: [], follows: 0 }
  look(d, otherOf[node])
}

function wipe(d: Draft, node: DataNode): void {
  reboot(d, node)
  const host = d.hosts[node]
  host.incs += 1
  host.disk = newDurable(`${node}${host.incs}`)
  host.database = noDatabase
  host.candidacy = 0
}

export function describe(world: World, action: Action): string {
  if (action.does === 'time') return `+${unitMs} ms`
  if ('link' in action) return `${action.does} ${action.link}`
  if (!('index' in action)) return `${action.node}: ${action.does}`
  const { from, to, message } = world.net[action.index]!
  return `${action.does} ${from}→${to}: ${showMessage(message)}`
}
