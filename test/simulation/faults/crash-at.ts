import type { Host } from '../host.ts'
import type { Act } from './fault.ts'

/**
 * Crashes at a chosen effect. Most effects are rare, so what brings them about is done on purpose half of the time; the
 * other half meets them in the course of other things.
 */
interface Plan {
  /** Whose agent is to crash; either if absent. */
  at?: 'primary' | 'backup'
  weight: number
  provoke?: (host: Host, ms: number) => void
}

const takeover: Plan = { at: 'backup', weight: 3, provoke: (host, ms) => dieFor(host.peer, ms) }
const switchover: Plan = { at: 'primary', weight: 4, provoke: host => host.pair.operator.switchover(host) }
/** The primary takes the eligibility back for a moment, and gives it again: votes, names, proof. */
const round = (at: 'primary' | 'backup', weight: number): Plan => ({
  at,
  weight,
  provoke: host => {
    const primary = at === 'primary' ? host : host.peer
    primary.agent.command({ command: 'maintenance', until: primary.clock.now + 400 })
  },
})
const lostBackup = (weight: number): Plan => ({
  at: 'primary',
  weight,
  provoke: host => host.peer.agent.crash(2000),
})

const plans = {
  '*': { weight: 8 },
  persist: { weight: 2 },
  // The backup looks at its database when the primary tells that it is about to hand over.
  look: { at: 'backup', weight: 2, provoke: host => host.pair.operator.switchover(host.peer) },
  'send:read': { weight: 2 },
  'send:heartbeat': { at: 'primary', weight: 1 },
  'send:ack': { at: 'backup', weight: 1 },
  'gate:open': { at: 'primary', weight: 1 },
  'send:prepare': round('primary', 1),
  'send:accept': round('primary', 1),
  'send:learn': round('primary', 1),
  'send:promise': round('backup', 1),
  'send:accepted': round('backup', 1),
  'database:syncNames': lostBackup(2),
  'database:proveSync': lostBackup(4),
  'send:cas': takeover,
  'database:promote': { ...takeover, weight: 5 },
  'vip:up': takeover,
  announce: takeover,
  'services:running': takeover,
  'database:drain': switchover,
  'gate:frozen': switchover,
  'gate:closed': switchover,
  'vip:down': switchover,
  'services:stopped': switchover,
  'database:kill': switchover,
  answer: switchover,
  'database:rejoin': { at: 'backup', weight: 2, provoke: host => host.cluster.losePostmaster(20) },
  'database:startPrimary': {
    at: 'primary',
    weight: 5,
    provoke: host => {
      dieFor(host.peer, 9000)
      host.pair.world.after(3000, () => host.cluster.crash())
    },
  },
  'send:resign': {
    at: 'primary',
    weight: 4,
    provoke: (host, ms) => {
      const { peer, pair } = host
      peer.agent.pause()
      pair.world.after(pair.timing.heartbeatMs * 2.2, () => host.cluster.losePostmaster(20))
      pair.world.after(pair.timing.leaseMs + ms / 10, () => {
        if (peer.power === 'on') peer.agent.goOn({ jump: false })
      })
    },
  },
} satisfies { [effect: string]: Plan }
export type CrashEffect = keyof typeof plans

export const crashEffects = Object.keys(plans) as CrashEffect[]
const drawn: readonly CrashEffect[] = crashEffects.flatMap(effect =>
  Array.from({ length: plans[effect].weight }, () => effect),
)

/** The plan stays until it is met, or everything heals. */
export const crashAt: Act = ({ pair, host: here, fault }) => {
  const { x, y, ms } = fault
  const effect = drawn[Math.floor(x * drawn.length)]!
  const plan: Plan = plans[effect]
  const primary = pair.hosts[pair.named ?? pair.options.primary]
  const host = plan.at === undefined ? here : plan.at === 'primary' ? primary : primary.peer
  const how = (y * 30) % 1 < 0.6 ? 'kill' : 'power'
  host.agent.crashPlan = {
    effect,
    when: (['before', 'during', 'after'] as const)[Math.floor(y * 3)]!,
    how,
    countdown: Math.floor(((y * 300) % 1) * (effect === '*' ? 40 : 2)),
    happened: () => {
      if (how === 'kill') return host.agent.crash((y * 3000) % 1 < 0.3 ? 5000 : undefined)
      host.powerCut()
      pair.world.after(500 + ms / 4, () => host.boot())
    },
  }
  if ((y * 30_000) % 1 < 0.6) plan.provoke?.(host, ms)
  return () => {}
}

function dieFor(host: Host, ms: number): void {
  host.powerCut()
  host.pair.world.after(ms, () => host.boot())
}
