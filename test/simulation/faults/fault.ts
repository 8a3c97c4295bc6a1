import type { Host } from '../host.ts'
import type { Pair } from '../pair.ts'

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

export interface Scene {
  pair: Pair
  host: Host
  fault: Fault
}

/** Begins a fault; what it returns ends it, after `fault.ms` or when everything is healed. */
export type Act = (scene: Scene) => () => void

export const nothing = (): void => {}

/** How often each kind is drawn in a storm; those with 0 come in another way, see drawFaults. */
export const weights = {
  powerCut: 8,
  powerCutBoth: 2,
  lostTail: 1,
  agentKill: 6,
  agentStop: 6,
  agentUpgrade: 2,
  suspend: 3,
  hostPause: 3,
  wallJump: 1,
  stoppedClock: 0,
  anotherProfile: 0,
  reimage: 3,
  crashAt: 16,
  postmasterKill: 4,
  backendCrash: 3,
  databaseStop: 2,
  cancelWaits: 3,
  checkpointerBusy: 3,
  breakReplication: 2,
  logRemoved: 1,
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
  witnessFlap: 1,
  witnessSlow: 2,
  witnessAmnesia: 2,
  witnessRestored: 1,
  witnessSetBack: 1,
  witnessReplace: 1,
  witnessGivenUp: 1,
  switchover: 6,
  callOff: 2,
  repeatCommand: 2,
  maintenance: 2,
  leave: 3,
  force: 3,
} as const

export type FaultKind = keyof typeof weights

/** What a single fault may do to an otherwise healthy pair, and be promised something about. */
export const singleKinds: readonly FaultKind[] = [
  'powerCut',
  'agentKill',
  'agentStop',
  'postmasterKill',
  'backendCrash',
  'breakReplication',
  'cutPeer',
  'cutOneWay',
  'cutPath',
  'cutWitness',
  'isolate',
  'deaf',
  'mute',
  'uplink',
  'witnessDown',
  'witnessFlap',
  'witnessSlow',
  'witnessAmnesia',
  'witnessReplace',
  'switchover',
  'diskHang',
  'diskSlow',
  'diskFull',
  'ioError',
  'suspend',
  'hostPause',
  'leave',
]

/** These last long enough for a pin and its end. */
export const longKinds: ReadonlySet<FaultKind> = new Set(['witnessDown', 'cutWitness', 'witnessGivenUp', 'witnessFlap'])
