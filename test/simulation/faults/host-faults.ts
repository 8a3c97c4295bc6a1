import type { Host } from '../host.ts'
import { type Act, nothing, type Scene } from './fault.ts'

/** What befalls a machine, its clock or its agent. */

const powerCut: Act = ({ host }) => {
  host.powerCut()
  return () => host.boot()
}

/** Both hosts at once, the witness too now and then; they come back in either order. */
const powerCutBoth: Act = ({ pair, host, fault }) => {
  const { witness } = pair
  const withWitness = fault.x < 0.3
  pair.each(one => one.powerCut())
  if (withWitness) witness.down++
  return () => {
    const lateMs = 100 * 100 ** fault.y
    host.boot()
    pair.world.after(lateMs, () => host.peer.boot())
    if (withWitness) pair.world.after(lateMs * fault.x * 5, () => witness.backUp())
  }
}

/** The backup's volume loses a tail that it had acknowledged: a lying flush, or a snapshot. Only while the primary has everything. */
const lostTail: Act = ({ pair, host }) => {
  const { cluster, peer } = host
  const { maxFlushed } = host.file.content
  const whole = pair.acknowledged.lackingIn(peer.cluster.log) === null && peer.serves
  if (cluster.process !== 'standby' || !whole || maxFlushed.timeline !== cluster.log.tl.number) return nothing
  const end = maxFlushed.lsn - 100
  host.powerCut()
  if (end > cluster.log.tl.fork && end < cluster.log.end) {
    cluster.log = { tl: cluster.log.tl, end }
    pair.count('lost tail')
  }
  return () => host.boot()
}

const agentKill: Act = ({ host, fault }) => {
  host.agent.crash(fault.x < 0.5 ? fault.ms / 20 : fault.ms)
  return nothing
}

const agentUpgrade: Act = ({ pair, host, fault }) => {
  pair.count('agent upgrade')
  host.agent.crash(20 + fault.x * 200)
  return nothing
}

const agentStop: Act = ({ host }) => {
  host.agent.pause()
  return () => {
    if (host.power === 'on') host.agent.goOn({ jump: false })
  }
}

/** Wall time leaps while the agent does not run: it takes that for a pause of the machine. */
const wallJump: Act = ({ host }) => {
  host.agent.pause()
  return () => {
    if (host.power === 'on') host.agent.goOn({ jump: true })
  }
}

const pause =
  (how: 'suspend' | 'stopped clock' | 'clock goes on'): Act =>
  ({ host }) => {
    host.pause(how)
    return () => host.goOn()
  }

/** New disks, while the other host serves and has everything. */
const reimage: Act = ({ pair, host }) => {
  if (!pair.operator.replaceable(host)) return nothing
  host.reimage()
  pair.count('host re-imaged')
  return () => host.boot()
}

/**
 * Effects at which a crash can be planned; '*' is any. With each what is done to bring the effect about: half of the
 * time nothing, so that it is met in the course of other things.
 */
export const crashEffects = [
  '*',
  'persist',
  'send:prepare',
  'send:accept',
  'send:cas',
  'send:promise',
  'send:accepted',
  'send:learn',
  'send:heartbeat',
  'send:ack',
  'send:resign',
  'send:read',
  'gate:open',
  'gate:frozen',
  'gate:closed',
  'vip:up',
  'vip:down',
  'announce',
  'look',
  'services:running',
  'services:stopped',
  'database:kill',
  'database:promote',
  'database:startPrimary',
  'database:rejoin',
  'database:syncNames',
  'database:proveSync',
  'database:drain',
  'answer',
] as const
export type CrashEffect = (typeof crashEffects)[number]

/** Rare effects are drawn more often than their share. */
const crashWeights: { readonly [effect in CrashEffect]?: number } = {
  '*': 6,
  persist: 2,
  'send:cas': 3,
  'send:resign': 4,
  'vip:down': 2,
  'database:kill': 2,
  'database:promote': 4,
  'database:startPrimary': 4,
  'database:rejoin': 4,
  'database:drain': 3,
}
const crashDraw: readonly CrashEffect[] = crashEffects.flatMap(effect =>
  Array.from({ length: crashWeights[effect] ?? 1 }, () => effect),
)

const crashAt: Act = ({ pair, host, fault }) => {
  const { x, y, ms } = fault
  const effect = crashDraw[Math.floor(x * crashDraw.length)]!
  const when = (['before', 'during', 'after'] as const)[Math.floor(y * 3)]!
  const how = (y * 30) % 1 < 0.6 ? 'kill' : 'power'
  host.agent.crashPlan = {
    effect,
    when,
    how,
    countdown: Math.floor(((y * 300) % 1) * (effect === '*' ? 40 : 2)),
    happened: () => {
      if (how === 'kill') return host.agent.crash((y * 3000) % 1 < 0.3 ? 5000 : undefined)
      host.powerCut()
      pair.world.after(500 + ms / 4, () => host.boot())
    },
  }
  if ((y * 30_000) % 1 < 0.6) provoke({ pair, host, fault }, effect)
  return () => {
    host.agent.crashPlan = null
  }
}

/** Does something after which `effect` is likely on `host`. */
function provoke({ pair, host, fault }: Scene, effect: CrashEffect): void {
  const { operator } = pair
  const isPrimary = pair.named === host.node
  switch (effect) {
    case 'send:cas':
    case 'database:promote':
    case 'vip:up':
    case 'announce':
      if (!isPrimary) return dieFor(host.peer, fault.ms)
      return
    case 'send:resign':
      if (!isPrimary) return
      host.peer.agent.pause()
      pair.world.after(40, () => host.cluster.losePostmaster(20))
      pair.world.after(fault.ms, () => host.peer.agent.goOn({ jump: false }))
      return
    case 'database:startPrimary':
      if (!isPrimary) return
      dieFor(host.peer, 8000)
      pair.world.after(3000, () => host.cluster.crash())
      return
    case 'database:rejoin':
      return host.cluster.losePostmaster(20)
    case 'database:drain':
    case 'services:stopped':
    case 'vip:down':
    case 'answer':
      return operator.switchover(host)
    case 'database:kill':
    case 'gate:closed':
      return isPrimary ? host.cluster.losePostmaster(20) : undefined
    case 'send:promise':
    case 'send:accepted':
    case 'database:syncNames':
    case 'database:proveSync':
      return isPrimary ? undefined : host.cluster.stream.breakConnection()
    default:
      return
  }
}

function dieFor(host: Host, ms: number): void {
  host.powerCut()
  host.pair.world.after(ms, () => host.boot())
}

/** The host leaves in an orderly way: told so, it has a moment, then its power goes. */
const leave: Act = ({ pair, host, fault }) => {
  pair.count('leave')
  host.agent.command({ command: 'leave' })
  pair.world.after(300 + fault.x * 2000, () => host.powerCut())
  return () => pair.world.after(2500, () => host.boot())
}

export const hostFaults = {
  powerCut,
  powerCutBoth,
  lostTail,
  agentKill,
  agentStop,
  agentUpgrade,
  suspend: pause('suspend'),
  hostPause: pause('clock goes on'),
  stoppedClock: pause('stopped clock'),
  wallJump,
  reimage,
  crashAt,
  leave,
} satisfies { [kind: string]: Act }
