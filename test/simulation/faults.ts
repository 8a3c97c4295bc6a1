import type { DataNode } from '../../shared/protocol/types.ts'
import type { Host } from './host.ts'
import type { Options } from './options.ts'
import type { Pair } from './pair.ts'
import { Random } from './random.ts'

/**
 * Faults as data: drawn before the run, so that a failing list can be shortened. `role` is resolved when the fault
 * begins; `x` and `y` are the fault's own dice.
 */
export interface Fault {
  id: number
  at: number
  kind: FaultKind
  role: 'primary' | 'backup'
  ms: number
  x: number
  y: number
}

export type FaultKind = keyof typeof weights

const weights = {
  powerCut: 8,
  lostTail: 1,
  agentKill: 6,
  agentStop: 6,
  agentUpgrade: 2,
  suspend: 3,
  stoppedClock: 0,
  postmasterKill: 4,
  backendCrash: 3,
  databaseStop: 2,
  cancelWaits: 3,
  checkpointerBusy: 3,
  breakReplication: 2,
  diskSlow: 3,
  diskHang: 3,
  diskFull: 2,
  ioError: 2,
  writeFails: 3,
  cutPeer: 6,
  cutOneWay: 4,
  cutPath: 2,
  cutWitness: 4,
  isolate: 4,
  deaf: 3,
  mute: 2,
  lossy: 3,
  slowLink: 2,
  flap: 2,
  uplink: 3,
  witnessDown: 5,
  witnessSlow: 2,
  witnessAmnesia: 2,
  witnessRestored: 1,
  witnessSetBack: 1,
  witnessReplace: 1,
  switchover: 6,
  callOff: 2,
  repeatCommand: 2,
  maintenance: 2,
  leave: 3,
  force: 3,
  reimage: 3,
  crashAt: 14,
} as const

/** What a single fault may do to an otherwise healthy pair, and be promised something about. */
export const singleKinds: readonly FaultKind[] = [
  'powerCut',
  'agentKill',
  'agentStop',
  'postmasterKill',
  'backendCrash',
  'cutPeer',
  'cutOneWay',
  'cutWitness',
  'isolate',
  'deaf',
  'witnessDown',
  'witnessAmnesia',
  'switchover',
  'diskHang',
  'ioError',
  'suspend',
  'leave',
]

/** Effects at which a crash can be planned; '*' is any. */
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
  'services:running',
  'services:stopped',
  'database:kill',
  'database:promote',
  'database:startPrimary',
  'database:rejoin',
  'database:syncNames',
  'database:proveSync',
  'database:drain',
] as const

export function drawFaults(options: Options): Fault[] {
  const r = new Random(options.seed, 'faults')
  const kinds = { ...weights, stoppedClock: options.runClass === 'wild' ? 8 : 0 }
  const faults: Fault[] = []
  // Half of the storms come in bursts: faults that hit what the one before set off.
  const burst = r.chance(0.5)
  let at = r.between(0, 4000)
  for (let id = 0; id < options.faults; id++) {
    const kind = options.runClass === 'single' ? r.pick(singleKinds) : r.weighted(kinds)
    const long = kind === 'witnessDown' || kind === 'cutWitness'
    faults.push({
      id,
      at,
      kind,
      role: r.chance(0.6) ? 'primary' : 'backup',
      ms: r.spread(20, long ? 90_000 : 15_000),
      x: r.next(),
      y: r.next(),
    })
    const gap = options.safetyMs / options.faults
    at += burst && r.chance(0.6) ? r.spread(1, 1500) : r.between(0, 2 * gap)
    if (at > options.safetyMs) at = r.between(0, options.safetyMs)
  }
  return faults
}

/** Begins a fault; what it returns ends it. The end comes after `ms`, or when everything is healed. */
export function begin(pair: Pair, fault: Fault): (() => void) | null {
  const node: DataNode = pair.named ?? pair.options.primary
  const primary = pair.hosts[node]
  const host = fault.role === 'primary' ? primary : primary.peer
  pair.trace(
    'fault',
    `${fault.id} ${fault.kind} at ${host.node} for ${fault.ms.toFixed(0)} ms (${fault.x.toFixed(3)} ${fault.y.toFixed(3)})`,
  )
  pair.count(`fault: ${fault.kind}`)
  return (
    hostFault(pair, host, fault) ??
    databaseFault(host, fault) ??
    diskFault(host, fault) ??
    linkFault(pair, host, fault) ??
    otherFault(pair, host, fault)
  )
}

const nothing = () => {}

function hostFault(pair: Pair, host: Host, f: Fault): (() => void) | null {
  switch (f.kind) {
    case 'powerCut':
      host.powerCut()
      return () => host.boot()
    case 'lostTail':
      return lostTail(pair, host)
    case 'agentKill':
      host.agent.crash(f.x < 0.5 ? f.ms / 20 : f.ms)
      return nothing
    case 'agentUpgrade':
      pair.count('agent upgrade')
      host.agent.crash(20 + f.x * 200)
      return nothing
    case 'agentStop':
      host.agent.pause()
      return () => {
        if (host.power === 'on') host.agent.goOn({ jump: false })
      }
    case 'suspend':
      host.pause('suspend')
      return () => host.goOn()
    case 'stoppedClock':
      host.pause('stopped clock')
      return () => host.goOn()
    case 'crashAt':
      return crashAt(pair, host, f)
    case 'reimage':
      return reimage(pair, host)
    default:
      return null
  }
}

function databaseFault(host: Host, f: Fault): (() => void) | null {
  const { cluster } = host
  switch (f.kind) {
    case 'postmasterKill':
      cluster.losePostmaster(20 + f.x * f.x * 3000)
      return nothing
    case 'backendCrash':
      cluster.crash()
      return nothing
    case 'databaseStop': {
      const { life } = cluster
      cluster.stopped = true
      return () => {
        if (cluster.life !== life || host.power !== 'on') return
        cluster.stopped = false
        cluster.stream.pump()
        if (cluster.answers) host.pair.checks.answers(host)
      }
    }
    case 'cancelWaits':
      if (cluster.waiting.length > 0) host.pair.count('cancelled wait')
      cluster.cancelWaits()
      return nothing
    case 'checkpointerBusy':
      cluster.checkpointerBusyUntil = host.pair.world.now + f.ms / 5
      return nothing
    case 'breakReplication':
      cluster.stream.breakConnection()
      return nothing
    default:
      return null
  }
}

function diskFault(host: Host, f: Fault): (() => void) | null {
  const disk = f.x < 0.5 ? host.registerDisk : host.dataDisk
  switch (f.kind) {
    case 'diskSlow':
      disk.slowMs = 20 * 100 ** f.y
      return () => {
        disk.slowMs = 0
      }
    case 'diskHang':
      disk.hang()
      return () => disk.goOn()
    case 'diskFull':
      disk.full++
      return () => {
        if (disk.full > 0) disk.full--
      }
    case 'ioError':
      disk.ioError = true
      return nothing
    case 'writeFails':
      host.registerDisk.failNext = 1 + Math.floor(f.y * 2)
      return () => {
        host.registerDisk.failNext = 0
      }
    default:
      return null
  }
}

function linkFault(pair: Pair, host: Host, f: Fault): (() => void) | null {
  const { network } = pair
  const me = host.node
  const peer = host.peer.node
  const cut = (links: (by: 1 | -1) => void) => {
    links(1)
    return () => links(-1)
  }
  const both = (x: 'a' | 'b' | 'w', y: 'a' | 'b' | 'w', by: 1 | -1) => {
    network.cutAll(x, y, by)
    network.cutAll(y, x, by)
  }
  switch (f.kind) {
    case 'cutPeer':
      return cut(by => both(me, peer, by))
    case 'cutOneWay':
      return cut(by => network.cutAll(me, peer, by))
    case 'cutPath':
      return cut(by => {
        network.cut(me, peer, f.x < 0.6 ? 0 : 1, by)
        network.cut(peer, me, f.x < 0.6 ? 0 : 1, by)
      })
    case 'cutWitness':
      return cut(by => {
        both(me, 'w', by)
        if (f.x < 0.3) both(peer, 'w', by)
      })
    case 'isolate':
      return cut(by => {
        both(me, peer, by)
        both(me, 'w', by)
        host.setUplink(by)
      })
    case 'deaf':
      return cut(by => {
        network.cutAll(peer, me, by)
        network.cutAll('w', me, by)
      })
    case 'mute':
      return cut(by => {
        network.cutAll(me, peer, by)
        network.cutAll(me, 'w', by)
      })
    case 'uplink':
      return cut(by => host.setUplink(by))
    case 'lossy':
    case 'slowLink': {
      const change = f.kind === 'lossy' ? { loss: f.y * 0.4, delayMs: 0 } : { loss: 0, delayMs: f.y * f.y * 800 }
      const links =
        f.x < 0.6
          ? ([
              [me, peer],
              [peer, me],
            ] as const)
          : ([
              [me, 'w'],
              ['w', me],
            ] as const)
      for (const [from, to] of links) network.worsen(from, to, change)
      return () => {
        for (const [from, to] of links) network.worsen(from, to, { loss: -change.loss, delayMs: -change.delayMs })
      }
    }
    case 'flap':
      return flap(pair, by => both(me, peer, by), 100 + f.y * 1900)
    default:
      return null
  }
}

function flap(pair: Pair, cut: (by: 1 | -1) => void, everyMs: number): () => void {
  let isCut = false
  let over = false
  const turn = () => {
    if (over) return
    isCut = !isCut
    cut(isCut ? 1 : -1)
    pair.world.after(everyMs, turn)
  }
  turn()
  return () => {
    over = true
    if (isCut) cut(-1)
  }
}

function otherFault(pair: Pair, host: Host, f: Fault): () => void {
  const { witness, operator } = pair
  switch (f.kind) {
    case 'witnessDown':
      witness.down++
      return () => {
        witness.down--
      }
    case 'witnessSlow':
      witness.slowMs = 10 * 200 ** f.x
      return () => {
        witness.slowMs = 0
      }
    case 'witnessAmnesia':
      // The row is lost; until there is a new one nothing answers.
      pair.count('witness amnesia')
      witness.otherTimeline = true
      return nothing
    case 'witnessRestored':
      witness.otherTimeline = true
      return nothing
    case 'witnessSetBack':
      setWitnessBack(pair)
      return nothing
    case 'witnessReplace':
      operator.replaceWitness()
      return nothing
    case 'switchover':
      operator.switchover(f.x < 0.5 ? host : host.peer)
      return nothing
    case 'callOff':
      operator.switchover(host)
      pair.world.after(f.x * 60, () => host.agent.command({ command: 'cancelSwitchover' }))
      return nothing
    case 'repeatCommand':
      operator.repeatOld(host)
      return nothing
    case 'maintenance':
      pair.count('maintenance')
      host.agent.command({ command: 'maintenance', until: host.clock.now + f.ms })
      return nothing
    case 'leave':
      return leave(pair, host, f)
    case 'force':
      operator.force(host, { withWitness: f.x < 0.75 })
      return nothing
    default:
      return nothing
  }
}

/** The backup's volume loses a tail that it had acknowledged: a lying flush, or a snapshot. Only while the primary has everything. */
function lostTail(pair: Pair, host: Host): () => void {
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

function crashAt(pair: Pair, host: Host, f: Fault): () => void {
  const effect = crashEffects[Math.floor(f.x * crashEffects.length)]!
  const when = (['before', 'during', 'after'] as const)[Math.floor(f.y * 3)]!
  const how = (f.y * 30) % 1 < 0.6 ? 'kill' : 'power'
  host.agent.crashPlan = {
    effect,
    when,
    how,
    countdown: Math.floor(((f.y * 300) % 1) * (effect === '*' ? 40 : 3)),
    happened: () => {
      if (how === 'kill') return host.agent.crash((f.y * 3000) % 1 < 0.3 ? 5000 : undefined)
      host.powerCut()
      pair.world.after(500 + f.ms / 4, () => host.boot())
    },
  }
  return () => {
    host.agent.crashPlan = null
  }
}

function reimage(pair: Pair, host: Host): () => void {
  if (!pair.operator.replaceable(host)) return nothing
  host.reimage()
  pair.count('host re-imaged')
  return () => host.boot()
}

/** The host leaves in an orderly way: told so, it has a moment, then its power goes. */
function leave(pair: Pair, host: Host, f: Fault): () => void {
  pair.count('leave')
  host.agent.command({ command: 'leave' })
  pair.world.after(300 + f.x * 2000, () => host.powerCut())
  return () => pair.world.after(2500, () => host.boot())
}

/** Only to a state in which every answer that was given since has been seen by both hosts: what the protocol can notice. */
function setWitnessBack(pair: Pair): void {
  const { witness } = pair
  const top = witness.state
  const seenBy = (host: Host) => host.file.safe.wSeen[witness.inc] ?? 0
  const both = Math.min(seenBy(pair.hosts.a), seenBy(pair.hosts.b))
  const done = witness.rollBack(state => {
    const ballot = state.acc?.ballot ?? 0
    return ballot > 0 && ballot < both && (top.acc?.ballot ?? 0) <= both && top.promised <= both
  })
  if (done) pair.count('witness set back')
}
