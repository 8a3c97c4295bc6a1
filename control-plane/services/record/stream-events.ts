import { eq } from 'drizzle-orm'
import type { streamEvents } from '../../../shared/contract/api/observation.ts'
import { isInForce } from '../../auth/bearer.ts'
import { asMember, type Member } from '../../auth/caller.ts'
import { event, organisation } from '../../db/schema/index.ts'
import { inOrganisation } from '../../db/transaction.ts'
import type { Deps } from '../../deps.ts'
import { faultLine } from '../../fault-text.ts'
import type { Call } from '../../http/call.ts'
import { Refusal } from '../../http/problem.ts'
import { UnderWay } from '../../http/under-way.ts'
import { eventsAfter, eventView } from './read-events.ts'

/**
 * Events as server-sent events (HTML, section 9.2). Each carries its number as id; a client that comes back with
 * Last-Event-ID gets what it missed, since numbers become visible in their order. The stream reads the table: instances
 * share nothing else, so a client may come back to any of them.
 */

/** A person sees a change within a second; a hundred open pages cost a hundred small reads. */
const lookEveryMs = 1000
/** Below the idle limit of every proxy we know (60 s). */
const commentEveryMs = 15_000
/** Runtimes and proxies cut long answers, some without a word; so we end first, and the client comes back. */
export const streamLimitMs = 4 * 60_000
const retryMs = 1000
const batchRows = 200
/** So often it is asked whether the credential is still one: who is shut out hears no more than this. */
const recheckMs = 2_000
/** Each costs a small read a second, wherever it is; a large organisation has a hundred pages open. */
export const streamsMax = 200
export const openStreams = new UnderWay(streamsMax)

const streamHeaders = { 'content-type': 'text/event-stream', 'cache-control': 'no-store', 'x-accel-buffering': 'no' }

export async function eventStream(call: Call<typeof streamEvents>): Promise<Response> {
  const member = asMember(call.caller)
  const { deps, request, query } = call
  // Before anything is waited for: any number of requests at once find the same number of places.
  const leave = openStreams.take(member.organisation)
  if (leave === null)
    throw new Refusal(
      'rate_limited',
      `this organisation has ${streamsMax} streams of events open here; end some of them`,
      { headers: { 'retry-after': '60' } },
    )
  const lastEventId = request.headers.get('last-event-id')
  const after = await beginningOf(deps, { member, lastEventId, after: query.after }).catch((error: unknown) => {
    leave()
    throw error
  })
  // It asks what would be answered, and reads none of it.
  if (request.method === 'HEAD') {
    leave()
    return new Response(null, { headers: streamHeaders })
  }
  const encoder = new TextEncoder()
  let ended = false
  let wake = (): void => {}
  const stop = (): void => {
    ended = true
    wake()
  }
  // Some runtimes tell of a client that left in one way, some in the other.
  request.signal.addEventListener('abort', stop)
  if (request.signal.aborted) stop()
  const stream = new ReadableStream<Uint8Array>({
    start: controller => {
      const send = (text: string): void => controller.enqueue(encoder.encode(text))
      // A client that reads slowly, or not at all, is not read ahead of: what it has not taken stays in the table.
      const room = async (): Promise<void> => {
        if (ended || (controller.desiredSize ?? 0) > 0) return
        const { promise, resolve } = Promise.withResolvers<void>()
        wake = resolve
        const timer = setTimeout(resolve, streamLimitMs)
        await promise
        clearTimeout(timer)
      }
      const filter = { member, pair: query.pair }
      const credential = request.headers.get('authorization') ?? ''
      void follow(deps, { filter, after, send, room, credential, hasEnded: () => ended })
        .catch((error: unknown) => {
          deps.log({
            level: 'warning',
            message: `an event stream ended: ${faultLine(error)}`,
          })
        })
        .finally(() => {
          request.signal.removeEventListener('abort', stop)
          leave()
          try {
            controller.close()
          } catch {
            // The client closed it first.
          }
        })
    },
    pull: () => wake(),
    cancel: stop,
  })
  return new Response(stream, { headers: streamHeaders })
}

interface Following {
  filter: { member: Member; pair: string | undefined }
  after: number
  send: (text: string) => void
  /** Resolves when the client has taken what was sent. */
  room: () => Promise<void>
  /** The header by which it was opened. */
  credential: string
  hasEnded: () => boolean
}

async function follow(deps: Deps, { filter, after, send, room, credential, hasEnded }: Following): Promise<void> {
  const began = Date.now()
  let spokeAt = began
  let admittedAt = began
  let cursor = after
  send(`retry: ${retryMs}\n: from ${cursor}\n\n`)
  while (!hasEnded() && Date.now() - began < streamLimitMs) {
    await room()
    if (Date.now() - admittedAt > recheckMs) {
      if (!(await isInForce(deps, credential))) return
      admittedAt = Date.now()
    }
    const rows = await inOrganisation(deps.database, filter.member.organisation, tx =>
      eventsAfter(tx, { ...filter, after: cursor, limit: batchRows }),
    )
    if (hasEnded()) return
    if (rows.length > 0) {
      send(rows.map(row => `id: ${row.seq}\nevent: ${row.kind}\ndata: ${JSON.stringify(eventView(row))}\n\n`).join(''))
      cursor = rows.at(-1)?.seq ?? cursor
      spokeAt = Date.now()
    }
    if (Date.now() - spokeAt > commentEveryMs) {
      send(': alive\n\n')
      spokeAt = Date.now()
    }
    if (rows.length < batchRows) await new Promise(resolve => setTimeout(resolve, lookEveryMs))
  }
}

/** Without a position: from now on. @throws Refusal 410 when what it missed is not kept any more */
async function beginningOf(
  deps: Deps,
  { member, lastEventId, after }: { member: Member; lastEventId: string | null; after: number | undefined },
): Promise<number> {
  if (lastEventId !== null && !/^\d{0,15}$/.test(lastEventId))
    throw new Refusal('malformed', 'Last-Event-ID is none that this stream gave: it is the number of an event')
  const given = lastEventId === null || lastEventId === '' ? (after ?? null) : Number(lastEventId)
  return inOrganisation(deps.database, member.organisation, async tx => {
    const [head] = await tx
      .select({ seq: organisation.eventSeq })
      .from(organisation)
      .where(eq(organisation.id, member.organisation))
    const newest = head?.seq ?? 0
    if (given === null) return newest
    const [oldest] = await tx
      .select({ seq: event.seq })
      .from(event)
      .where(eq(event.organisation, member.organisation))
      .orderBy(event.seq)
      .limit(1)
    const first = oldest?.seq ?? newest + 1
    if (given > newest || given < first - 1)
      throw new Refusal(
        'gone',
        `events after ${given} are not kept (there are ${first} to ${newest}): read the state anew, and stream from now`,
      )
    return given
  })
}
