import { z } from 'zod'

/**
 * Between the CLI and the agent on one host: one JSON object a line, over a Unix socket of mode 0600.
 * A request is answered by any number of `progress` lines and then one `result` or one `error`, all with its id.
 */

/** A request is some words; what is longer is not ours. */
export const requestBytesMax = 16 * 1024
/** An answer with the whole ring of decisions of both hosts fits; the client refuses more. */
export const answerBytesMax = 8 * 1024 * 1024

export const requestSchema = z.strictObject({
  id: z.int().min(0),
  verb: z.string().max(64),
  args: z.record(z.string().max(64), z.unknown()).default({}),
})
export type Request = z.output<typeof requestSchema>

/** Why a verb was not done, for people and as one word for the exit code. */
export const errorCodes = ['usage', 'refused', 'unknown outcome', 'failed'] as const
export type ErrorCode = (typeof errorCodes)[number]

export const answerSchema = z.union([
  z.object({ id: z.int(), progress: z.unknown() }),
  z.object({ id: z.int(), result: z.unknown() }),
  z.object({ id: z.int(), error: z.object({ code: z.enum(errorCodes), message: z.string() }) }),
])
export type Answer = z.output<typeof answerSchema>

/** A refusal that its reader can act on; anything else that a verb throws is a bug. */
export class VerbError extends Error {
  override name = 'VerbError'
  readonly code: ErrorCode
  constructor(code: ErrorCode, message: string) {
    super(message)
    this.code = code
  }
}

/** Cuts a byte stream into lines; a line beyond the limit ends the stream. */
export class Lines {
  #rest = ''
  readonly #limit: number
  constructor(limit: number) {
    this.#limit = limit
  }

  /** null: a line is longer than the limit. */
  take(text: string): string[] | null {
    const parts = (this.#rest + text).split('\n')
    this.#rest = parts.pop() ?? ''
    return this.#rest.length > this.#limit || parts.some(part => part.length > this.#limit) ? null : parts
  }
}
