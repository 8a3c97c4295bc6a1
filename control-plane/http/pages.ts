import { fromBase64url, toBase64url } from '../../shared/signing.ts'
import { Refusal } from './problem.ts'

/** A cursor is the key of the last row of the page before; opaque, so that it may become something else. */
export const cursorOf = (key: string): string => toBase64url(new TextEncoder().encode(`1:${key}`))

/** null: from the beginning. @throws Refusal */
export function keyOfCursor(cursor: string | undefined): string | null {
  if (cursor === undefined) return null
  const bytes = fromBase64url(cursor)
  const text = bytes === null ? '' : new TextDecoder().decode(bytes)
  const field = 'query.cursor'
  const message = 'is none that this API gave: take nextCursor of the page before'
  if (!text.startsWith('1:') || text.includes('\0'))
    throw new Refusal('invalid', `${field}: ${message}`, { violations: [{ field, rule: 'format', message }] })
  return text.slice(2)
}

/** Where rows are counted. null: from the beginning. @throws Refusal */
export function numberOfCursor(cursor: string | undefined): number | null {
  const key = keyOfCursor(cursor)
  if (key === null) return null
  const field = 'query.cursor'
  const message = 'is of another list: take nextCursor of the page before'
  if (!/^\d{1,15}$/.test(key))
    throw new Refusal('invalid', `${field}: ${message}`, { violations: [{ field, rule: 'format', message }] })
  return Number(key)
}

/** Queries ask for one row more than a page holds: whether there is another page is then known. */
export function pageOfRows<Row, Item>(
  rows: readonly Row[],
  { limit, key, view }: { limit: number; key: (row: Row) => string; view: (row: Row) => Item },
): { data: Item[]; nextCursor: string | null } {
  const shown = rows.slice(0, limit)
  const last = shown.at(-1)
  return {
    data: shown.map(view),
    nextCursor: rows.length > limit && last !== undefined ? cursorOf(key(last)) : null,
  }
}
