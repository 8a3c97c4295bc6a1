import { z } from 'zod'

/**
 * What a host tells about itself. It is written by a machine that may have been broken into, so every string and list
 * is bounded and unknown fields are dropped; a bound that is passed makes the whole report invalid.
 */
export const reportBytesMax = 64 * 1024

const text = z.string().max(500)
const word = z.string().max(64)
const count = z.int().min(0)
const ms = z.number().min(0).max(1e12)
const verdict = z.enum(['yes', 'no', 'unknown'])
/** It is shown as a whole number; a backup that is ahead for a moment has a negative one. */
const lagMax = Number.MAX_SAFE_INTEGER

/** Raised by each start of the control worker, and durable: a report of an older start never replaces a newer one's. */
export const reportOrder = { boot: count.max(2 ** 31 - 1), seq: count.max(2 ** 52) }

/**
 * When the host said it, in ms since 1970, by its clock as corrected by the control plane's (HTTPS, `Date`). Over the
 * broker only what was said within this time counts: who owns it may hold messages back, but not show yesterday as today.
 */
export const saidWithinMs = 60_000
const saidAt = z
  .int()
  .min(0)
  .max(2 ** 52)

export const heartbeat = z.object({
  v: z.literal(2),
  ...reportOrder,
  role: z.enum(['primary', 'backup', 'not a member', 'unsettled', 'unknown']),
  epoch: count,
  observedGeneration: count,
  at: saidAt,
  /** `heartbeat-mac.ts`. */
  mac: z.string().max(32),
})
export type Heartbeat = z.output<typeof heartbeat>

/**
 * A hint for people who look at the broker: nothing rests on it. `boot` tells the will of an earlier start from a word of
 * this one: an offline whose boot is not that of the last online says nothing.
 */
export const presence = z.object({ v: z.literal(1), state: z.enum(['online', 'offline']), boot: reportOrder.boot })
export type Presence = z.output<typeof presence>

const checkVerdict = z.object({
  takeover: z.boolean(),
  switchover: z.boolean(),
  blocking: z.array(text).max(32),
  warnings: z.array(text).max(32),
  predicted: z.object({
    powerCutOutageMs: ms.nullable(),
    databaseDeathOutageMs: ms.nullable(),
    switchoverOutageMs: ms.nullable(),
    loss: text,
  }),
})

export const hostReport = z
  .object({
    v: z.literal(1),
    ...reportOrder,
    observedGeneration: count,
    applied: z.object({ status: z.enum(['True', 'False', 'Unknown']), generation: count, why: text }),
    /** null: the core is not running, or this host is in no pair. */
    pair: z
      .object({
        role: z.enum(['primary', 'backup', 'not a member', 'unsettled']),
        gen: count,
        /** Above `gen`: forced on the other host, and nothing of what was written in it is known here. */
        genHeard: z.exactOptional(count),
        epoch: count,
        version: count,
        serving: z.boolean(),
        primary: z.enum(['a', 'b']).nullable(),
        successor: z.boolean(),
        protection: z.enum(['protected', 'serving but unprotected', 'not serving']),
        since: z.iso.datetime(),
        why: text,
        sealed: z.boolean(),
        maintenance: z.boolean(),
        peer: z.object({ heardAgoMs: ms.nullable(), admitted: z.boolean(), why: text }),
        witness: z
          .object({
            reach: verdict,
            voteP99Ms: ms.nullable(),
            why: text,
            /** It will not vote again before it has admitted the pair anew. */
            void: z.exactOptional(z.boolean()),
          })
          .nullable(),
        replication: z.object({
          process: word,
          timeline: count,
          lsn: word,
          streaming: z.boolean(),
          lagBytes: z.number().min(-lagMax).max(lagMax).nullable(),
          operation: word.nullable(),
          lastError: text,
        }),
        vips: z
          .array(z.object({ address: word, interface: word, present: z.boolean(), conflict: text.nullable() }))
          .max(32),
        alarms: z.array(text).max(32),
        check: checkVerdict.nullable(),
      })
      .nullable(),
    agent: z.object({ version: word, startedAt: z.iso.datetime() }),
    /** Wall time of the host as it sent this, for the skew. */
    sentAt: z.iso.datetime(),
    override: z.object({ active: z.boolean(), why: text }).optional(),
    /** Of the newest signed word that this host holds about how fresh its document is. */
    freshAt: z.iso.datetime().nullable(),
    certificateEndsAt: z.iso.datetime().nullable(),
  })
  .meta({ id: 'HostReport' })
export type HostReport = z.output<typeof hostReport>

export const hostEvent = z.object({
  /** Made on the host; the same id again is the same event. */
  id: z.string().regex(/^[0-9a-hjkmnp-tv-z]{26}$/),
  at: z.iso.datetime(),
  kind: z.string().regex(/^[a-z][a-z0-9_]{0,63}$/),
  severity: z.enum(['info', 'warning', 'critical']),
  message: text,
})
export type HostEvent = z.output<typeof hostEvent>
export const eventBatch = z.object({ v: z.literal(1), events: z.array(hostEvent).min(1).max(100) })

/** What a host says over the broker, inside a JWS by its key; by HTTPS the request is signed instead. */
export const saidReport = z.object({ v: z.literal(2), at: saidAt, report: hostReport })
export type SaidReport = z.output<typeof saidReport>
export const saidEvents = z.object({ v: z.literal(2), at: saidAt, events: eventBatch.shape.events })
export type SaidEvents = z.output<typeof saidEvents>
/** Base64url takes a third more, and the header some bytes. */
export const saidBytesMax = Math.ceil((reportBytesMax * 4) / 3) + 1024

/** A report that is nested more deeply than any real one is refused before it is parsed. */
export const reportDepthMax = 12

/** Whether JSON is nested more deeply than that; without parsing it, which costs a hostile text its own depth of stack. */
export function isDeeperThan(bytes: Uint8Array, depthMax: number): boolean {
  let depth = 0
  let inString = false
  for (let at = 0; at < bytes.length; at++) {
    const byte = bytes[at]
    if (inString) {
      if (byte === 0x5c) at++
      else if (byte === 0x22) inString = false
    } else if (byte === 0x22) inString = true
    else if (byte === 0x7b || byte === 0x5b) {
      if (++depth > depthMax) return true
    } else if (byte === 0x7d || byte === 0x5d) depth--
  }
  return false
}

/** Parses hostile JSON within bounds; null when it breaks one. */
export function parseBounded(bytes: Uint8Array, bytesMax: number = reportBytesMax): unknown {
  if (bytes.length > bytesMax || isDeeperThan(bytes, reportDepthMax)) return null
  try {
    const value: unknown = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes), storable)
    return typeof value === 'object' ? value : null
  } catch {
    return null
  }
}

/** PostgreSQL's text and jsonb hold neither U+0000 nor half a surrogate pair, though JSON can write both. */
function storable(_key: string, value: unknown): unknown {
  if (typeof value === 'string' && (value.includes('\0') || !value.isWellFormed())) throw new Error('not storable')
  return value
}
