import { isDeeperThan } from '../../shared/contract/report.ts'
import { Refusal } from './problem.ts'

/** Unless a route says otherwise: an answer of a host that carries a sealed secret has 100 KiB. */
export const bodyBytesMax = 128 * 1024

/** The whole body, never more than the limit in memory. @throws Refusal */
export async function readBody(request: Request, bytesMax: number = bodyBytesMax): Promise<Uint8Array> {
  const tooLarge = new Refusal('too_large', `a body has at most ${bytesMax} bytes`)
  if (Number(request.headers.get('content-length') ?? 0) > bytesMax) throw tooLarge
  if (request.body === null) return new Uint8Array()
  const chunks: Uint8Array[] = []
  let length = 0
  const reader = request.body.getReader()
  for (;;) {
    const { done, value } = await reader.read()
    if (done) break
    length += value.length
    if (length > bytesMax) {
      await reader.cancel()
      throw tooLarge
    }
    chunks.push(value)
  }
  const whole = new Uint8Array(length)
  let at = 0
  for (const chunk of chunks) {
    whole.set(chunk, at)
    at += chunk.length
  }
  return whole
}

/** No body of this API, inventories of hosts included, is nested half as deep; the database's own parser has a bound as well. */
const bodyDepthMax = 32

/** A name that an object has twice, of which the parser takes the last; null: there is none. Of a text that is JSON. */
function namedTwice(json: string): string | null {
  const open: (Set<string> | null)[] = []
  // Each text, with the colon that makes it a name, and each beginning and end.
  for (const [token] of json.matchAll(/"[^"\\]*(?:\\.[^"\\]*)*"(?:\s*:)?|[{}[\]]/g)) {
    if (token === '{') open.push(new Set())
    else if (token === '[') open.push(null)
    else if (token === '}' || token === ']') open.pop()
    else if (token.endsWith(':')) {
      const name = JSON.parse(token.slice(0, -1)) as string
      if (open.at(-1)?.has(name)) return name
      open.at(-1)?.add(name)
    }
  }
  return null
}

/** Only the form counts here; what JSON can write and the database cannot hold is none. @throws Refusal */
export function parseJson(bytes: Uint8Array): unknown {
  if (isDeeperThan(bytes, bodyDepthMax))
    throw new Refusal('malformed', `the body is nested more than ${bodyDepthMax} deep`)
  try {
    const json = new TextDecoder('utf-8', { fatal: true }).decode(bytes)
    const parsed: unknown = JSON.parse(json, (key, value: unknown) => {
      const text = typeof value === 'string' ? value : key
      if (text.includes('\0') || !text.isWellFormed()) throw new Error('a text holds U+0000 or half a surrogate pair')
      return value
    })
    const twice = namedTwice(json)
    if (twice !== null) throw new Error(`${JSON.stringify(twice.slice(0, 100))} stands twice in one object`)
    return parsed
  } catch (error) {
    throw new Refusal('malformed', `the body is not JSON in UTF-8: ${error instanceof Error ? error.message : ''}`)
  }
}
