import { waitsForGiveUp } from '../../shared/protocol/facts.ts'
import { Violation } from '../simulation/checkers/check.ts'
import { after, choicesOf } from './actions.ts'
import { dataNodes, serves, unitMs, type World } from './pair.ts'
import { draftOf, give, start } from './run.ts'

/**
 * L1, from one state: everything heals, and from there on a calm world has to become whole: one host serves, and the other
 * is its successor. The operator gives up what he is asked to, and lets a host on when the forced takeover is sealed.
 */

/** The longest waits: a standby that goes astray is joined anew after 100 units, a database is started again after 300. */
const stepsMax = 2500
/** Whole for this long, and without a round: it lasts. */
const steadyUnits = 4

export function demandConvergence(from: World): void {
  let world = healed(from)
  let wholeSince = -1
  for (let i = 0; i < stepsMax; i++) {
    if (!isWhole(world)) wholeSince = -1
    else if (wholeSince < 0) wholeSince = world.now
    else if (world.now - wholeSince >= steadyUnits * unitMs) return
    world = cared(world, i)
    world = after(world, choicesOf(world)[0]!.action, { crashAt: -1, log: null }).world
  }
  throw new Violation('L1', `healed, and calm for ${stepsMax} steps, the pair is not whole: ${describe(world)}`)
}

function isWhole(world: World): boolean {
  const latest = world.truth.latest?.value
  return latest?.successor === true && serves(world, latest.primary)
}

/** Links are back, nothing is held up, whoever may be on is on, and maintenance is over. */
function healed(world: World): World {
  const d = draftOf(world, -1, null)
  d.cuts = []
  d.net = d.net.map(flight => ({ ...flight, held: false }))
  d.budget = Object.fromEntries(Object.keys(d.budget).map(item => [item, 0])) as unknown as World['budget']
  for (const node of dataNodes) {
    const host = d.hosts[node]
    host.stalled = false
    if (host.op !== null) host.op = { ...host.op, held: false }
    if (host.agent === 'resting') host.agent = 'down'
    if (host.agent === 'stopped') {
      host.agent = 'up'
      give(d, node, { event: 'tick' })
    }
    give(d, node, { event: 'operator', command: { command: 'maintenance', until: 0 } })
  }
  return undrafted(d)
}

const caresEvery = 20

function cared(world: World, step: number): World {
  if (step % caresEvery !== 0) return world
  const off = choicesOf(world).find(({ action }) => action.does === 'power on')
  const d = draftOf(world, -1, null)
  if (off !== undefined && 'node' in off.action) start(d, off.action.node)
  for (const node of dataNodes) {
    const { core, disk, agent } = d.hosts[node]
    if (agent !== 'up' || !waitsForGiveUp(core)) continue
    give(d, node, { event: 'operator', command: { command: 'giveUp', gen: disk.known?.value.gen ?? 0 } })
  }
  return undrafted(d)
}

function undrafted(d: ReturnType<typeof draftOf>): World {
  const { moments: _, crashAt: __, log: ___, ...world } = d
  return world
}

function describe(world: World): string {
  const { latest } = world.truth
  const host = (node: 'a' | 'b'): string => {
    const { agent, core, gate, database, op } = world.hosts[node]
    const said = Object.entries(core.duty.said).filter(([, text]) => text !== '')
    return `${node}: agent ${agent}, gate ${gate.state}, database ${database.process} epoch ${database.epoch}, ${op?.op.op ?? 'no operation'}, round ${core.round?.change ?? 'none'}, ${core.lease.ack?.why ?? 'no answer'} [${said.map(([topic, text]) => `${topic}: ${text}`).join('; ')}]`
  }
  return `register ${JSON.stringify(latest?.value)}; ${host('a')}; ${host('b')}`
}
