import { join } from 'node:path'
import { z } from 'zod'
import type { RecordFormat } from './state-file/record.ts'
import { readPlace, writePlace } from './state-file/two-places.ts'

/**
 * Until when the operator suspended automatic takeover: the core keeps it in memory, and a new agent (an upgrade is what
 * maintenance is for, often) must not forget it.
 */
const schema = z.strictObject({ boot: z.string(), untilBootMs: z.number(), untilWallMs: z.number() })
const format: RecordFormat<z.output<typeof schema>> = { kind: 'maintenance', version: 1, schema }
const fileIn = (stateDir: string): string => join(stateDir, 'maintenance')
/** A forgotten maintenance must not leave a pair without automatic takeover for good. */
export const maintenanceMaxMs = 24 * 3_600_000

/** Elapsed time of one boot is exact; over a boot there is only the wall clock. */
export interface Moment {
  boot: string
  bootMs: number
  wallMs: number
}

/** @param until CLOCK_BOOTTIME in ms; 0: it is over */
export function rememberMaintenance(stateDir: string, { until, now }: { until: number; now: Moment }): Promise<void> {
  const untilWallMs = until === 0 ? 0 : now.wallMs + until - now.bootMs
  return writePlace(fileIn(stateDir), { boot: now.boot, untilBootMs: until, untilWallMs }, format)
}

/** CLOCK_BOOTTIME in ms; 0 where none is remembered, it is over, or the file can't be read: a takeover is the safer default. */
export function rememberedMaintenance(stateDir: string, { now, maxMs }: { now: Moment; maxMs: number }): number {
  const found = contentOf(stateDir)
  if (found === null) return 0
  const { boot, untilBootMs, untilWallMs } = found
  const until = boot === now.boot ? untilBootMs : now.bootMs + untilWallMs - now.wallMs
  // A wall clock that was set must not make it longer than anybody may ask for.
  return until > now.bootMs ? Math.min(until, now.bootMs + maxMs) : 0
}

function contentOf(stateDir: string): z.output<typeof schema> | null {
  try {
    return readPlace(fileIn(stateDir), format)
  } catch {
    return null
  }
}
