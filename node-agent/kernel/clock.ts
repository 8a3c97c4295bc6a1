/** The clocks the core decides by. Wall time is for people only and is not offered here. */
import { readFileSync } from 'node:fs'
import { clockMs } from './libc.ts'

const CLOCK_MONOTONIC = 1
const CLOCK_BOOTTIME = 7

/** The kernel's id of this boot; a setting, so that a lab can give several "hosts" on one kernel ids of their own. */
export const DEFAULT_BOOT_ID_PATH = '/proc/sys/kernel/random/boot_id'

/** Milliseconds since boot, time in suspend included (CLOCK_BOOTTIME, clock_gettime(2)). Leases are counted on this. */
export function bootMs(): number {
  return clockMs(CLOCK_BOOTTIME)
}

/** Milliseconds since boot without the time in suspend: a change of `bootMs() - monotonicMs()` means a suspend. */
export function monotonicMs(): number {
  return clockMs(CLOCK_MONOTONIC)
}

/** A random id that is new after each boot of the host. Throws if the file is missing or holds no id. */
export function readBootId(path: string = DEFAULT_BOOT_ID_PATH): string {
  const id = readFileSync(path, 'utf8').trim()
  if (!/^[0-9a-f-]{8,64}$/.test(id)) throw new Error(`${path} holds ${JSON.stringify(id)}, which is no boot id.`)
  return id
}
