import { appendFileSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Found } from './totals.ts'

/** Every seed that ever failed, one a line: `SEED CHECKER what it was`; '#' begins a comment. Append only. */
export const keptSeedsFile = join(import.meta.dirname, 'kept-seeds.txt')

export interface KeptSeed {
  seed: number
  checker: string
  what: string
}

export function keptSeeds(file = keptSeedsFile): KeptSeed[] {
  return readFileSync(file, 'utf8')
    .split('\n')
    .map((line, index) => ({ text: line.replace(/#.*/, '').trim(), where: `${file}:${index + 1}` }))
    .filter(({ text }) => text !== '')
    .map(({ text, where }) => {
      const [seed = '', checker = '', ...what] = text.split(/\s+/)
      if (!/^\d+$/.test(seed) || checker === '' || what.length === 0)
        throw new Error(`${where}: "${text}" is not SEED CHECKER WHAT`)
      return { seed: Number(seed), checker, what: what.join(' ') }
    })
}

/** Adds those that are not there yet. */
export function keepSeeds(found: readonly Found[], file = keptSeedsFile): void {
  const there = new Set(keptSeeds(file).map(kept => kept.seed))
  const lines = found
    .filter(one => !there.has(one.seed))
    .map(one => `${one.seed} ${one.checker} ${one.message.replaceAll('#', '').slice(0, 110)}\n`)
  if (lines.length > 0) appendFileSync(file, lines.join(''))
}
