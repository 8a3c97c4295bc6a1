import { readSecret, writeSecret } from '../keys/secret-file.ts'
import { pairKeyBytes } from '../peer/session.ts'

/**
 * The file of the pair's key: one line, base64url. While the hosts get another key in turn it has two: the new one with
 * the name of its change, and the one before, which both hosts have.
 */
export interface KeyRing {
  newest: Buffer
  /** null: there is one key, which both hosts have. */
  change: { name: string; before: Buffer } | null
}

/** @throws with a sentence if a key is missing, damaged or readable by others. */
export function readKeyRing(path: string): KeyRing {
  const bytes = readSecret(path)
  if (bytes === null) throw new Error(`${path} does not exist: \`understudy pair init\` or \`pair join\` makes it`)
  const [first = '', second, ...rest] = bytes.toString('utf8').trim().split('\n')
  if (rest.length > 0)
    throw new Error(`${path} has ${2 + rest.length} lines: a pair has one key, and two while it is changed`)
  const [key = '', name = ''] = first.split(' ')
  const newest = keyOf(key, path)
  return { newest, change: second === undefined ? null : { name, before: keyOf(second, path) } }
}

/** The newest first. */
export const keysOf = ({ newest, change }: KeyRing): Buffer[] => (change === null ? [newest] : [newest, change.before])

/** A key beside the one that both hosts have, and before it. Again for the same change it stays as it is. */
export async function addKey(path: string, { name, key }: { name: string; key: Buffer }): Promise<void> {
  const ring = readKeyRing(path)
  if (ring.change?.name === name) return
  // Of a change that was not taken by both: that key goes.
  const common = ring.change?.before ?? ring.newest
  await write(path, [`${key.toString('base64url')} ${name}`, common.toString('base64url')])
}

/** One of two goes: the new one as a change is taken back, the one before once both hosts use the new one. */
export async function dropKey(path: string, which: 'newest' | 'before'): Promise<void> {
  const { newest, change } = readKeyRing(path)
  if (change !== null) await write(path, [(which === 'newest' ? change.before : newest).toString('base64url')])
}

const write = (path: string, lines: readonly string[]): Promise<void> =>
  writeSecret(path, Buffer.from(`${lines.join('\n')}\n`))

function keyOf(text: string, path: string): Buffer {
  const key = Buffer.from(text, 'base64url')
  if (key.length === pairKeyBytes) return key
  throw new Error(
    `${path} holds ${key.length} bytes, a pair key has ${pairKeyBytes}: copy it from the other host again`,
  )
}
