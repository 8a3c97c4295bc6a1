import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { stripTypeScriptTypes } from 'node:module'
import { test } from 'node:test'
import { applyEdits } from '../mutants/defect.ts'
import { mutants } from '../mutants/list.ts'
import { nothing, readResults } from '../mutants/results.ts'

const edit = { file: 'somewhere.ts', before: 'one', after: 'two' }

test('a defect is refused loudly where its text is missing, is there twice, or would change nothing', () => {
  assert.equal(applyEdits('a one b', [edit]), 'a two b')
  assert.throws(() => applyEdits('a b', [edit]), /holds the text to be replaced 0 times/)
  assert.throws(() => applyEdits('one one', [edit]), /holds the text to be replaced 2 times/)
  assert.throws(() => applyEdits('a one b', [{ ...edit, after: 'one' }]), /changes nothing/)
})

test('each mutant still applies to the source as it is, and what comes out can be loaded', () => {
  for (const { id, edits } of mutants) {
    for (const file of new Set(edits.map(one => one.file))) {
      const mine = edits.filter(one => one.file === file)
      const source = applyEdits(readFileSync(file, 'utf8'), mine)
      assert.doesNotThrow(() => stripTypeScriptTypes(source), `${id} breaks the syntax of ${file}`)
    }
  }
})

test('no two mutants share a name', () => {
  assert.equal(new Set(mutants.map(one => one.id)).size, mutants.length)
})

test('the results that are kept have a row for each mutant, and none was left unnoticed', () => {
  const rows = readResults()
  const missing = mutants.filter(({ id }) => !rows.has(id)).map(({ id }) => id)
  assert.deepEqual(missing, [], 'npm run mutants -- --record --only ID,… adds them')
  assert.deepEqual(
    [...rows.values()].filter(row => row.noticedBy === nothing).map(({ id }) => id),
    [],
  )
})
