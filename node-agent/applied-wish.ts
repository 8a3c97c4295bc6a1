import { existsSync, readFileSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { z } from 'zod'
import { writeWhole } from './pair/setup-file.ts'

/**
 * What of this host's configuration comes from the control plane. It lies beside the operator's file and is laid over it,
 * so that the pair starts and serves without the control plane, and everything else in the file stays the operator's.
 *
 * Settings that are new are tried: written here as unconfirmed, with those before them, and confirmed once the host is
 * well with them. Until then a start that fails, or a host that does not become well, goes back by itself. Those before are
 * kept on until the other host has the same: where it refuses them, the pair goes back as a whole.
 */
export const wishedFields = [
  'pair',
  'node',
  'profile',
  'peer',
  'vips',
  'protectedPorts',
  'witness',
  'services',
  'network',
  'sync',
] as const
export type WishedField = (typeof wishedFields)[number]
export type WishedFields = { [field in WishedField]?: unknown }

const settingsInForce = {
  /** SHA-256 of the wish's settings: both hosts of a pair are told the same. '' before the first. */
  hash: z.string(),
  /** The wish's settings as they came: what a later wish changes is told from them. */
  settings: z.unknown(),
  fields: z.partialRecord(z.enum(wishedFields), z.unknown()),
}
const schema = z.object({
  v: z.literal(1),
  ...settingsInForce,
  confirmed: z.boolean(),
  /** Wall time in ms since 1970. */
  triedAtMs: z.number(),
  /** Starts of the agent with unconfirmed settings. */
  starts: z.int().min(0),
  previous: z.object(settingsInForce).nullable(),
  /** The last that were taken back, and why: they are not tried again. */
  refused: z.object({ hash: z.string(), why: z.string() }).nullable(),
  /** Settings that this host did not begin with, and why: asked again now and then, and told to the other host. */
  unfit: z.object({ hash: z.string(), why: z.string() }).nullable().default(null),
})
export type AppliedWish = z.output<typeof schema>

/** Nothing of the host's configuration is changed by it yet. */
export const firstWish = {
  v: 1,
  fields: {},
  confirmed: true,
  triedAtMs: 0,
  starts: 0,
  previous: null,
  refused: null,
  unfit: null,
} as const

/** One start may be cut off by a power failure; two in a row are the settings. */
export const startsMax = 2

const fileOf = (stateDir: string): string => join(stateDir, 'control', 'applied.json')

/** null: nothing of this host's configuration comes from a control plane. @throws with a sentence if it is damaged */
export function readApplied(stateDir: string): AppliedWish | null {
  const path = fileOf(stateDir)
  if (!existsSync(path)) return null
  try {
    return schema.parse(JSON.parse(readFileSync(path, 'utf8')))
  } catch {
    throw new Error(`${path} is damaged: remove it, and the control plane's settings are applied again`)
  }
}

/** Of the settings on this host, for the other one. */
export interface SettingsStand {
  /** In force and proven; '' where none came from a control plane. */
  hash: string
  /** The last that this host did not take, or took back. */
  refused: { hash: string; why: string } | null
  /** Nothing of those before is kept any more. */
  settled: boolean
}

/** Read beside the core's loop. */
export async function settingsStand(stateDir: string): Promise<SettingsStand> {
  try {
    const { confirmed, hash, previous, unfit, refused } = schema.parse(
      JSON.parse(await readFile(fileOf(stateDir), 'utf8')),
    )
    const settled = previous === null
    return { hash: confirmed ? hash : (previous?.hash ?? ''), refused: unfit ?? refused, settled }
  } catch {
    return { hash: '', refused: null, settled: true }
  }
}

export const writeApplied = (stateDir: string, applied: AppliedWish): Promise<void> =>
  writeWhole(fileOf(stateDir), `${JSON.stringify(applied, null, 2)}\n`)

/** The settings before, in force again. */
export function takenBack(applied: AppliedWish, why: string): AppliedWish {
  const before = applied.previous ?? { hash: '', settings: null, fields: {} }
  const refused = { hash: applied.hash, why }
  return { v: 1, ...before, confirmed: true, triedAtMs: 0, starts: 0, previous: null, refused, unfit: null }
}
