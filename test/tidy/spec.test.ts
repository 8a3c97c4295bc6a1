import assert from 'node:assert/strict'
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { plans } from '../interruption/plans.ts'
import { mutants } from '../mutants/list.ts'
import { starts } from '../search/starts.ts'
import { weights } from '../simulation/faults/fault.ts'
import { allPaths, read, root } from './source.ts'

/** SPEC.md says where each rule is enforced and what checks it, guarantees.md how much is checked: here both are held to what there is. */

const specPath = 'shared/protocol/SPEC.md'
const spec = read(specPath)
const spans = [...spec.text.matchAll(/`([^`\n]+)`/g)].map(match => match[1] ?? '')
/** Number, rule, places, checks. */
const rules = [...spec.text.matchAll(/^- \*\*(R-\d+)\*\* (.+)\n {2}_In_ (.+)\n {2}_Checked by_ (.+)$/gm)].map(match =>
  match.slice(1),
)

const declares = (text: string, name: string): boolean =>
  new RegExp(`\\b(?:function|const|class|interface|type)\\s+${name}\\b`).test(text)

test('every place that SPEC.md names is there: the file, and what is declared in it', () => {
  const missing: string[] = []
  for (const span of spans) {
    const place = /^([\w./-]+\.ts): (\w+)$/.exec(span)
    if (place === null) continue
    const [, file = '', name = ''] = place
    const path = file.includes('/') ? file : `shared/protocol/${file}`
    if (!existsSync(join(root, path)) || !declares(read(path).text, name)) missing.push(span)
  }
  assert.deepEqual(missing, [])
})

test('every file that SPEC.md names is there', () => {
  const files = spans.filter(span => /^[\w.-]+\/[\w./-]+\.(?:ts|md)$/.test(span))
  assert.deepEqual(
    files.filter(file => !existsSync(join(root, file))),
    [],
  )
})

test('every mutant that SPEC.md names exists', () => {
  const known = new Set(mutants.map(mutant => mutant.id))
  const named = rules.flatMap(cells => [...(cells.at(-1) ?? '').matchAll(/(?<!search: )`([a-z0-9-]+)`/g)])
  assert.ok(named.length > 50)
  assert.deepEqual(
    named.map(match => match[1] ?? '').filter(id => !known.has(id)),
    [],
  )
})

test('every start of the search that SPEC.md names exists', () => {
  const known = new Set(starts.map(start => start.name))
  const named = [...spec.text.matchAll(/search: `([a-z0-9-]+)`/g)].map(match => match[1] ?? '')
  assert.ok(named.length > 5)
  assert.deepEqual(
    named.filter(name => !known.has(name)),
    [],
  )
})

test('every checker of the simulation is named in SPEC.md', () => {
  const checkers = allPaths().filter(path => /^test\/simulation\/checkers\/(?:[il]\d+-|truth)[\w-]*\.ts$/.test(path))
  assert.ok(checkers.length > 10)
  assert.deepEqual(
    checkers.filter(path => !spans.includes(path)),
    [],
  )
})

test('every rule of SPEC.md has its own number, a place that enforces it and something that checks it', () => {
  const numbers = rules.map(cells => cells[0])
  assert.equal(rules.length, spec.lines.filter(line => line.includes('**R-')).length)
  assert.equal(new Set(numbers).size, numbers.length)
  const bare = rules.filter(cells => {
    return cells.length !== 4 || !/`[\w./-]+\.ts: \w+`/.test(cells[2] ?? '') || !/I\d|L\d|`/.test(cells[3] ?? '')
  })
  assert.deepEqual(bare, [])
})

test('guarantees.md counts the faults, plans, scenarios and mutants that there are', () => {
  const { text } = read('infra/docs/guarantees.md')
  const told = (pattern: RegExp): number[] => [...text.matchAll(pattern)].map(match => Number(match[1]))
  const scenarios = allPaths()
    .filter(path => /^test\/scenarios\/(?:[\w-]+\.test\.ts|transcripts\/[\w-]+\.txt)$/.test(path))
    .map(path => (path.endsWith('.txt') ? 1 : read(path).lines.filter(line => line.startsWith('test(')).length))
  assert.deepEqual(told(/(\d+) kinds of faults/g), [Object.keys(weights).length])
  assert.deepEqual(told(/(\d+) plans \(/g), [plans.length])
  assert.deepEqual(told(/`npm test -- scenarios` *\| (\d+) /g), [scenarios.reduce((sum, count) => sum + count, 0)])
  assert.deepEqual(told(/(\d+) defects, each of which/g), [mutants.length])
  assert.deepEqual(told(/`test\/mutants\/RESULTS\.md` *\| (\d+) /g), [mutants.length])
})
