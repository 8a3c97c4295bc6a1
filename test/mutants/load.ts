/**
 * Preloaded (`node --import ./test/mutants/load.ts …`): runs any program with one mutant in it, named by
 * UNDERSTUDY_MUTANT; does nothing without it. Child processes inherit both where NODE_OPTIONS carries the import.
 * Each process that loaded a changed file leaves a line in the file that UNDERSTUDY_MUTANT_LOG names.
 */
import { appendFileSync, readFileSync } from 'node:fs'
import { registerHooks } from 'node:module'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { applyEdits, type Edit } from './defect.ts'
import { mutantOf } from './list.ts'

const top = new URL('../../', import.meta.url)
const id = process.env.UNDERSTUDY_MUTANT ?? ''

if (id !== '') {
  const { edits } = mutantOf(id)
  const byUrl = new Map<string, Edit[]>()
  for (const edit of edits) {
    const url = pathToFileURL(fileURLToPath(new URL(edit.file, top))).href
    byUrl.set(url, [...(byUrl.get(url) ?? []), edit])
  }
  registerHooks({
    load(url, context, nextLoad) {
      const found = byUrl.get(url)
      if (found === undefined) return nextLoad(url, context)
      const source = applyEdits(readFileSync(fileURLToPath(url), 'utf8'), found)
      const log = process.env.UNDERSTUDY_MUTANT_LOG
      if (log !== undefined) appendFileSync(log, `${id} ${found[0]?.file}\n`)
      return { format: 'module-typescript', source, shortCircuit: true }
    },
  })
}
