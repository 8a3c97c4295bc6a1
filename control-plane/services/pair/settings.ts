import { eq, sql } from 'drizzle-orm'
import type { z } from 'zod'
import { type PairSettings, pairSettings, type pairSettingsPatch } from '../../../shared/contract/api/settings.ts'
import { newVipFaults } from '../../../shared/hosts/summary.ts'
import type { Member } from '../../auth/caller.ts'
import type { Transaction } from '../../db/client.ts'
import { pair } from '../../db/schema/index.ts'
import type { Deps } from '../../deps.ts'
import { validated } from '../../http/validate.ts'
import { recordEvents } from '../record/events.ts'
import { issueDesired } from './issue-desired.ts'
import { lockPair, type PairRows, readPair } from './read-pairs.ts'
import { invalid } from './set-up.ts'

/**
 * New settings, checked as a whole, one generation up, signed for both hosts. The hosts apply them one at a time and
 * revert what fails; the pair's view says which generation each has applied.
 */
export async function changeSettings(
  tx: Transaction,
  deps: Deps,
  part: { id: string; member: Member; version: number; patch: z.output<typeof pairSettingsPatch> },
): Promise<PairRows> {
  const rows = await lockPair(tx, part)
  const given = Object.fromEntries(Object.entries(part.patch).filter(([, value]) => value !== undefined))
  const settings = validated(pairSettings, { ...rows.pair.settings, ...given }, 'body')
  if (same(settings, rows.pair.settings)) return rows
  refuseForeignVips(rows, settings)
  const generation = rows.pair.generation + 1
  await tx.update(pair).set({ settings, generation, version: sql`version + 1` }).where(eq(pair.id, part.id))
  const { hostA, hostB, organisation } = rows.pair
  await issueDesired(tx, deps, { organisation, hosts: [hostA, hostB] })
  await recordEvents(tx, organisation, [
    {
      at: deps.now(),
      kind: 'settings_changed',
      severity: 'info',
      pair: part.id,
      host: null,
      message: `settings of pair ${rows.pair.name}, generation ${generation}: ${Object.keys(given).join(', ')}`,
      data: { generation, fields: Object.keys(given) },
    },
  ])
  return readPair(tx, part)
}

/** A new virtual address lies in the segment of both hosts' addresses on its interface, as they told them. */
function refuseForeignVips({ pair, hosts }: PairRows, settings: PairSettings): void {
  const both = hosts.a.summary === null || hosts.b.summary === null ? null : { a: hosts.a.summary, b: hosts.b.summary }
  if (both === null) return
  for (const [index, vip] of settings.vips.entries()) {
    if (pair.settings.vips.some(before => same(before, vip))) continue
    const [fault] = newVipFaults(vip, both)
    if (fault !== undefined) throw invalid(`body.vips[${index}].address`, fault)
  }
}

/** jsonb gives keys back in its own order. */
const same = (one: unknown, other: unknown): boolean => JSON.stringify(ordered(one)) === JSON.stringify(ordered(other))
function ordered(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(ordered)
  if (typeof value !== 'object' || value === null) return value
  return Object.entries(value)
    .sort(([one], [other]) => (one < other ? -1 : 1))
    .map(([key, one]) => [key, ordered(one)])
}
