import { existsSync, readFileSync } from 'node:fs'
import { basename, dirname, join } from 'node:path'
import { z } from 'zod'
import { openFolderWriter } from '../state-file/atomic-write.ts'

/**
 * How far the set-up of this host has come: written after each step, so that a set-up that was interrupted goes on where
 * it stopped, and read at each start of the agent. It holds the nonce of the admission before the witness is asked, so
 * that asking again is the same request.
 */
export const setupSchema = z.strictObject({
  pair: z.string(),
  node: z.enum(['a', 'b']),
  /** Whether this host begins the pair (its agent decrees the first value) or joins one. */
  part: z.enum(['begins', 'joins']),
  admissionNonce: z.string().nullable(),
  witnessInc: z.string().nullable(),
  /** The host key of the other host, for whoever joins in its place; '' where this host joined by an older token. */
  otherHostKeyPem: z.string(),
  /** ISO 8601 of when this host left its pair; absent while it belongs to it. */
  leftAt: z.exactOptional(z.string()),
})
export type Setup = z.output<typeof setupSchema>

const fileName = 'setup.json'

/** null: this host was never set up. @throws with a sentence if the file is damaged. */
export function readSetup(stateDir: string): Setup | null {
  const path = join(stateDir, fileName)
  if (!existsSync(path)) return null
  try {
    return setupSchema.parse(JSON.parse(readFileSync(path, 'utf8')))
  } catch {
    throw new Error(`${path} is damaged: restore it from a backup, or set this host up again in an empty stateDir`)
  }
}

export async function writeSetup(stateDir: string, setup: Setup): Promise<void> {
  await writeWhole(join(stateDir, fileName), `${JSON.stringify(setup, null, 2)}\n`)
}

/** Whether this host left its pair, and so may join it without a token. */
export const hasLeft = ({ stateDir }: { stateDir: string }): boolean => readSetup(stateDir)?.leftAt !== undefined

/** This host left: its agent must not take part again until somebody has it join. */
export class LeftPair extends Error {
  override name = 'LeftPair'
  constructor({ pair, leftAt }: Setup) {
    super(`this host left pair ${pair} at ${leftAt}: \`understudy pair join\` makes it a member again, with its data`)
  }
}

export async function markLeft(stateDir: string): Promise<void> {
  const setup = readSetup(stateDir)
  if (setup !== null) await writeSetup(stateDir, { ...setup, leftAt: new Date().toISOString() })
}

/** Mode 0600, durable, the whole file or none of it. */
export async function writeWhole(path: string, text: string): Promise<void> {
  const folder = await openFolderWriter(dirname(path))
  try {
    await folder.write(basename(path), Buffer.from(text))
  } finally {
    await folder.close()
  }
}
