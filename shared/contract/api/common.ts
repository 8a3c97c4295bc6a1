import { z } from 'zod'

/** Shapes that every resource shares. Unknown fields are refused on writes, and may be added to replies. */

/** A ULID in lower case: unique everywhere, sorted by the time it was made, fit for a topic level. */
export const id = z
  .string()
  .regex(/^[0-9a-hjkmnp-tv-z]{26}$/, 'must be an id as this API gives them: 26 of 0-9 and a-z without i, l, o, u')
export const time = z.iso.datetime().describe('UTC, RFC 3339')

/** For people: shown, never parsed. */
export const sentenceMax = 2000
export const sentence = z.string().max(sentenceMax)
export const reason = z.string().trim().min(1, 'must say why, for the audit').max(500)
export const resourceName = z
  .string()
  .regex(/^[a-z][a-z0-9-]{0,31}$/, 'must be 1 to 32 of a-z, 0-9 and "-", beginning with a letter')

export const slot = z.enum(['a', 'b']).describe('The place of a host in its pair; it is no role')
/** An answer that was not given is shown as unknown, never as good and never as bad. */
export const verdict = z.enum(['yes', 'no', 'unknown'])

/** Of replies: a schema with a name stays its name in the document, where `nullable` would write it out, or say that null is none. */
export const orNull = <Schema extends z.ZodType>(schema: Schema) => z.union([schema, z.null()])

/** Pages are bounded so that no answer grows with the fleet. */
export const pageLimitMax = 200
export const page = {
  limit: z.coerce.number().int().min(1).max(pageLimitMax).default(50),
  cursor: z.string().max(200).optional().describe('nextCursor of the page before'),
}
export const pageQuery = z.strictObject(page)
export const pageOf = <Item extends z.ZodType>(item: Item) =>
  z.object({ data: z.array(item), nextCursor: z.string().nullable().describe('null: this was the last page') })

/** RFC 9457. `type` is stable and relative to the API's own address; `code` is its last part. */
export const problem = z
  .object({
    type: z.string(),
    title: z.string(),
    status: z.int(),
    code: z.string(),
    detail: z.string().describe('A sentence with the values that decided, and the remedy'),
    instance: z.string().describe('The request id'),
    retryable: z.boolean().describe('Whether the same request may succeed later'),
    violations: z.array(z.object({ field: z.string(), rule: z.string(), message: z.string() })).optional(),
    obstacles: z.array(z.string()).optional().describe('Each a reason why it is refused now'),
    operation: id.optional().describe('The operation that stands in the way'),
  })
  .meta({ id: 'Problem' })
export type Problem = z.output<typeof problem>

export const pairParams = z.strictObject({ pair: id })
export const hostParams = z.strictObject({ host: id })
