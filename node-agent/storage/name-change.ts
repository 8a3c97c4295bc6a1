import { z } from 'zod'
import { runApart } from '../workers/apart.ts'
import { type NameChange, type NameChangeResult, nameRefusal } from './initiator-name.ts'

/**
 * A change of the iSCSI name runs in a process and a session of its own, one at a time: between logging out and in a host
 * is without its storage, and neither a closed terminal nor an agent that begins anew must leave it so.
 */
export const nameChangeVerb = 'initiator-name-change'

/** Of a change whose process ended before its end. */
export type NameUndo = { undo: 'unfinished' }

export const requestSchema = z.strictObject({
  folder: z.string(),
  /** Of the agent, which looks after a change that is under way; null: this host has none. */
  socket: z.string().nullable(),
  /** Where /sys, /proc and /etc are: tests have their own. */
  root: z.string(),
  wish: z.union([
    z.strictObject({ name: z.string(), logOutSessions: z.boolean(), theirs: z.string().nullable() }),
    z.strictObject({ undo: z.literal('unfinished') }),
  ]),
})
const resultSchema = z.discriminatedUnion('ok', [
  z.strictObject({
    ok: z.literal(true),
    from: z.string().nullable(),
    to: z.string(),
    sessions: z.number(),
    why: z.string(),
  }),
  z.strictObject({ ok: z.literal(false), begun: z.boolean(), why: z.string() }),
]) satisfies z.ZodType<NameChangeResult>
export const undoneSchema = z.strictObject({ whole: z.boolean(), why: z.string() })

/** Some sessions, each of which takes its half a minute and does not answer, and the way back. */
const processLimitMs = 600_000

export interface NamePlace {
  folder: string
  socket: string | null
  root?: string
}

/** @returns what became of it; a process that is killed is followed by one that takes the change back */
export async function runNameChange(place: NamePlace, wish: NameChange): Promise<NameChangeResult> {
  const refusal = nameRefusal(wish)
  if (refusal !== null) return { ok: false, begun: false, why: refusal }
  const result = resultSchema.safeParse(await ask(place, wish))
  if (result.success) return result.data
  const undone = await runUndo(place)
  const why = `the process of the change ended without a word, or not within ${processLimitMs / 60_000} minutes`
  return { ok: false, begun: true, why: `${why}; ${undone?.why ?? 'nor could it be taken back: look at the host'}` }
}

/** @returns null where that can't be said either */
export async function runUndo(place: NamePlace): Promise<z.output<typeof undoneSchema> | null> {
  const undone = undoneSchema.safeParse(await ask(place, { undo: 'unfinished' }))
  return undone.success ? undone.data : null
}

const ask = ({ folder, socket, root = '/' }: NamePlace, wish: NameChange | NameUndo): Promise<unknown> =>
  runApart(nameChangeVerb, {
    request: { folder, socket, root, wish } satisfies z.input<typeof requestSchema>,
    limitMs: processLimitMs,
  })
