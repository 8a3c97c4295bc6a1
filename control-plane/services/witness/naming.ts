import { and, eq, inArray, type SQL } from 'drizzle-orm'
import { witnessVote } from '../../db/schema/index.ts'

/** A pair is named as its hosts name it; an ended one whose name another has taken is kept beside it, by its incarnation. */
export interface Named {
  organisation: string
  pair: string
  inc: string
}

/** No pair has this name: a slash is none of its letters. */
export const nameAside = ({ pair, inc }: Pick<Named, 'pair' | 'inc'>): string => `${pair}/${inc}`

/** The rows that a question to this pair and incarnation may mean. */
export const isNamed = (of: Named): SQL | undefined =>
  and(eq(witnessVote.organisation, of.organisation), inArray(witnessVote.pair, [of.pair, nameAside(of)]))
