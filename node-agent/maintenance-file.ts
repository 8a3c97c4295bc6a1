import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { z } from 'zod'
import { openFolderWriter } from './state-file/atomic-write.ts'

/**
 * Until when the operator suspended automatic takeover: the core keeps it in memory, and a new agent (an upgrade is what
 * maintenance is for, often) must not forget it.
 */
const fileName = 'maintenance.json'
const schema = z.strictObject({ boot: z.string(), untilBootMs: z.number(), untilWallMs: z.number() })
/** A forgotten maintenance must not leave a pair without automatic takeover for good. */
export const maintenanceMaxMs = 24 * 3_600_000

/** Elapsed time of one boot is exact; over a boot there is only the wall clock. */
export interface Moment {
  boot: string
  bootMs: number
  wallMs: number
}

/** @param until CLOCK_BOOTTIME in ms; 0: it is over */
export async function rememberMaintenance(
  stateDir: string,
  { until, now }: { until: number; now: Moment },
): Promise<void> {
  const content = { boot: now.boot, untilBootMs: until, untilWallMs: until === 0 ? 0 : now.wallMs + until - now.bootMs }
  const folder = await openFolderWriter(stateDir)
  try {
    await folder.write(fileName, Buffer.from(JSON.stringify(content satisfies z.input<typeof schema>)))
  } finally {
    await folder.close()
  }
}

/** CLOCK_BOOTTIME in ms; 0 where none is remembered, it is over, or the file can't be read: a takeover is the safer default. */
export function rememberedMaintenance(stateDir: string, { now, maxMs }: { now: Moment; maxMs: number }): number {
  const found = schema.safeParse(contentOf(join(stateDir, fileName)))
  if (!found.success) return 0
  const { boot, untilBootMs, untilWallMs } = found.data
  const until = boot === now.boot ? untilBootMs : now.bootMs + untilWallMs - now.wallMs
  // A wall clock that was set must not make it longer than anybody may ask for.
  return until > now.bootMs ? Math.min(until, now.bootMs + maxMs) : 0
}

function contentOf(path: string): unknown {
  try {
    return JSON.parse(readFileSync(path, 'utf8'))
  } catch {
    return null // none was asked for, or the file is damaged
  }
}
