import { and, eq, inArray } from 'drizzle-orm'
import type { z } from 'zod'
import { parseBounded, saidBytesMax, saidWithinMs } from '../../shared/contract/report.ts'
import { verifyDocument } from '../../shared/contract/signing.ts'
import { fromBase64url } from '../../shared/signing.ts'
import { host } from '../db/schema/index.ts'
import { acrossOrganisations } from '../db/transaction.ts'
import type { Deps } from '../deps.ts'

/**
 * What came over the broker and names a host as who said it. It is opened first, which costs little and tells rubbish;
 * whether that host said it is asked afterwards, with the keys of many hosts in one query.
 */
export interface Said<Body> {
  organisation: string
  host: string
  /** The whole JWS. */
  text: string
  body: Body
}

export const isTimely = (at: number, now: Date): boolean => Math.abs(now.getTime() - at) <= saidWithinMs

/** null: it is none, or of another time. Not verified yet. */
export function opened<Schema extends z.ZodType<{ at: number }>>(
  payload: Uint8Array,
  { schema, now }: { schema: Schema; now: Date },
): { text: string; word: z.output<Schema> } | null {
  const jws = parseBounded(payload, saidBytesMax) as { payload?: unknown } | null
  if (typeof jws?.payload !== 'string') return null
  const bytes = fromBase64url(jws.payload)
  const parsed = bytes === null ? null : schema.safeParse(parseBounded(bytes))
  if (parsed?.success !== true || !isTimely(parsed.data.at, now)) return null
  return { text: new TextDecoder().decode(payload), word: parsed.data }
}

/** Of active hosts, each only under its own organisation, by host. */
export async function keysOf(
  deps: Deps,
  said: readonly Pick<Said<unknown>, 'organisation' | 'host'>[],
): Promise<ReadonlyMap<string, { organisation: string; publicKey: string }>> {
  const ids = [...new Set(said.map(one => one.host))]
  const rows = await acrossOrganisations(deps.database, tx =>
    tx
      .select({ id: host.id, organisation: host.organisation, publicKey: host.publicKey })
      .from(host)
      .where(and(inArray(host.id, ids), eq(host.state, 'active'))),
  )
  return new Map(rows.map(({ id, ...row }) => [id, row]))
}

export async function isFrom(
  key: { organisation: string; publicKey: string } | undefined,
  said: Pick<Said<unknown>, 'organisation' | 'host' | 'text'>,
  type: 'report' | 'events',
): Promise<boolean> {
  if (key?.organisation !== said.organisation) return false
  return (await verifyDocument(said.text, type, kid => (kid === said.host ? key.publicKey : null))).ok
}

/** A forger who is faster than a host costs this many signatures in a batch, and not the host's word. */
const triesMax = 8

/** The newest that each host did say: what somebody else wrote in its name is passed over. */
export async function newestGenuine<Body extends { boot: number; seq: number }>(
  deps: Deps,
  said: readonly Said<Body>[],
): Promise<{ genuine: Said<Body>[]; refused: number }> {
  const keys = await keysOf(deps, said)
  const byHost = Map.groupBy(said, one => one.host)
  let refused = 0
  const found = await Promise.all(
    [...byHost.values()].map(async words => {
      const newestFirst = words.sort((x, y) => y.body.boot - x.body.boot || y.body.seq - x.body.seq)
      for (const one of newestFirst.slice(0, triesMax)) {
        if (await isFrom(keys.get(one.host), one, 'report')) return one
        refused++
      }
      return null
    }),
  )
  return { genuine: found.filter(one => one !== null), refused }
}
