import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { mutants } from './list.ts'
import type { Outcome } from './trial.ts'

/** What became of each mutant, kept in the repository: a table for people that is read back to replace single rows. */
const file = join(import.meta.dirname, 'RESULTS.md')

export interface Row {
  id: string
  noticedBy: string
  after: string
  says: string
  seconds: string
  commit: string
  date: string
}

const header = `# What noticed each mutant

Written by \`npm run mutants -- --record\`, which replaces the rows of the mutants it tried (then \`npm run format\`). "After" counts from the first
run, interruption or action that the check tried; seconds are of two cores that had other work. \`npm run mutants -- --list\`
says what each one breaks.

| mutant | noticed by | after | what it said | seconds | commit | date |
|---|---|---|---|---:|---|---|
`

export function readResults(): Map<string, Row> {
  const rows = new Map<string, Row>()
  if (!existsSync(file)) return rows
  for (const line of readFileSync(file, 'utf8').split('\n')) {
    const cells = line.split('|').map(cell => cell.trim())
    const [, id = '', noticedBy = '', after = '', says = '', seconds = '', commit = '', date = ''] = cells
    if (mutants.some(mutant => mutant.id === id)) rows.set(id, { id, noticedBy, after, says, seconds, commit, date })
  }
  return rows
}

export function recordResults(outcomes: readonly Outcome[], stamp: { commit: string; date: string }): void {
  const rows = readResults()
  for (const outcome of outcomes) rows.set(outcome.id, { ...rowOf(outcome), ...stamp })
  const lines = mutants.flatMap(({ id }) => {
    const row = rows.get(id)
    if (row === undefined) return []
    return `| ${[id, row.noticedBy, row.after, row.says, row.seconds, row.commit, row.date].map(cell).join(' | ')} |\n`
  })
  writeFileSync(file, header + lines.join(''))
}

function rowOf(outcome: Outcome): Omit<Row, 'commit' | 'date'> {
  const { id } = outcome
  const seconds = `${outcome.seconds}`
  switch (outcome.result) {
    case 'killed':
      return { id, noticedBy: outcome.by, after: outcome.after, says: outcome.says, seconds }
    case 'survived':
      return { id, noticedBy: nothing, after: outcome.tried, says: '', seconds }
    case 'error':
      return { id, noticedBy: nothing, after: 'no valid trial', says: outcome.why, seconds }
  }
}
export const nothing = 'NOTHING'

/** One line of a table, and not a long one. */
const cell = (text: string): string => text.replaceAll('|', '/').replaceAll('\n', ' ').slice(0, cellMax)
const cellMax = 120
