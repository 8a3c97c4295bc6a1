import type { DiskState, Volume } from '../ports.ts'

/** How a host stands with its disks; told to the other host as well. */
export type Room = 'ample' | 'low' | 'critical' | 'unknown'

/** statfs(2) answers from memory; one that takes so long waits for a device. */
export const diskHangMs = 5000

/** A quarter of what is to be kept free: from here on the pair acts by itself. */
export const criticalMb = (freeDiskMb: number): number => Math.max(1, Math.floor(freeDiskMb / 4))

export function tightest(volumes: readonly Volume[]): Volume | null {
  return volumes.reduce<Volume | null>(
    (least, one) => (least === null || one.freeMb < least.freeMb ? one : least),
    null,
  )
}

export function roomOf({ volumes, hangsMs }: DiskState, freeDiskMb: number): Room {
  const least = tightest(volumes)
  if (least === null || hangsMs > diskHangMs) return 'unknown'
  if (least.freeMb < criticalMb(freeDiskMb)) return 'critical'
  return least.freeMb < freeDiskMb ? 'low' : 'ample'
}

/** One sentence with the remedy, or ''. */
export function diskAlarm(state: DiskState, freeDiskMb: number): string {
  if (state.hangsMs > diskHangMs)
    return `the disk has not answered for ${Math.round(state.hangsMs / 1000)} s: look at the device and its cables`
  const least = tightest(state.volumes)
  if (least === null || least.freeMb >= freeDiskMb) return ''
  const then = `below ${criticalMb(freeDiskMb)} MiB this host gives up its part in the pair`
  return `${least.path} has ${least.freeMb} MiB free, limits.freeDiskMb is ${freeDiskMb}: free space or enlarge it; ${then}`
}

export interface DiskSituation {
  room: Room
  role: string
  /** What the other host last said of itself. */
  peerRoom: Room
  /** The switchover for want of space that was tried last is so long ago. */
  triedAgoMs: number
  /** Whether this host has asked to be left out for want of space. */
  stepsBack: boolean
}
export type DiskAction = 'switchover' | 'stepBack' | 'return' | 'none'

/** A full disk on both would else send the service back and forth. */
export const switchoverPauseMs = 600_000

/**
 * Before the disk is full: a backup has itself made ineligible, so that the primary never waits for its last write; a
 * primary hands over to a backup with room. A backup comes back once it has ample room again.
 */
export function diskAction({ room, role, peerRoom, triedAgoMs, stepsBack }: DiskSituation): DiskAction {
  if (stepsBack && (room === 'ample' || role === 'primary')) return 'return'
  if (room !== 'critical') return 'none'
  if (role === 'backup') return stepsBack ? 'none' : 'stepBack'
  return role === 'primary' && peerRoom === 'ample' && triedAgoMs > switchoverPauseMs ? 'switchover' : 'none'
}
