import { eq } from 'drizzle-orm'
import { id } from '../../../shared/contract/api/common.ts'
import { type Ack, ack as ackSchema } from '../../../shared/contract/documents.ts'
import { verifyDocument } from '../../../shared/contract/signing.ts'
import { command, host, operation } from '../../db/schema/index.ts'
import { acrossOrganisations } from '../../db/transaction.ts'
import type { Deps } from '../../deps.ts'
import { drainQuietly } from '../../http/mutate.ts'
import { carryOn } from '../operation/carry-on.ts'
import { tellNews } from '../operation/news.ts'

/**
 * What became of a command. The signature counts, whoever brought it: the broker, a POST, the peer of the host.
 * @returns whether it was the answer to a command of ours
 */
export async function takeAck(deps: Deps, text: string): Promise<boolean> {
  const taken = await acrossOrganisations(deps.database, async tx => {
    const named = kidOf(text)
    const [from] = named === null ? [] : await tx.select().from(host).where(eq(host.id, named))
    if (from === undefined) return 'foreign'
    const verified = await verifyDocument(text, 'ack', kid => (kid === from.id ? from.publicKey : null))
    const parsed = verified.ok ? ackSchema.safeParse(verified.payload) : null
    if (parsed?.success !== true || parsed.data.host !== from.id) return 'foreign'
    const ack = parsed.data
    const [sent] = await tx.select().from(command).where(eq(command.jti, ack.jti))
    if (sent === undefined || sent.host !== from.id || sent.organisation !== from.organisation) return 'foreign'
    if (isPast(ack.phase, sent.phase)) return 'repeated'
    const [row] = await tx.select().from(operation).where(eq(operation.id, sent.operation)).for('update')
    if (row === undefined) return 'foreign'
    // Another answer to it may have been taken while this one waited for its turn.
    const [now] = await tx.select({ phase: command.phase }).from(command).where(eq(command.jti, ack.jti))
    if (now === undefined || isPast(ack.phase, now.phase)) return 'repeated'
    await tx.update(command).set({ phase: ack.phase }).where(eq(command.jti, ack.jti))
    await carryOn(tx, deps, { row, event: { kind: 'ack', ack } })
    return { operation: row.id }
  })
  if (typeof taken === 'object') {
    tellNews(taken.operation)
    deps.later(drainQuietly(deps))
  }
  return taken !== 'foreign'
}
const lastPhases: ReadonlySet<string> = new Set<Ack['phase']>(['done', 'failed', 'refused'])

/**
 * An answer comes over the broker and by HTTPS, the one late, and after a crash of the host again as "not known": nothing
 * follows after the last one, and that a command began is no news once something was told of its way.
 */
const isPast = (phase: Ack['phase'], before: string): boolean =>
  lastPhases.has(before) || (phase === 'accepted' && before === 'progress')

/** Not verified yet: it only says whose key is to be tried. */
function kidOf(text: string): string | null {
  try {
    const jws = JSON.parse(text) as { protected?: unknown }
    const header = JSON.parse(atob(String(jws.protected).replaceAll('-', '+').replaceAll('_', '/'))) as {
      kid?: unknown
    }
    return id.safeParse(header.kid).success ? (header.kid as string) : null
  } catch {
    return null
  }
}
