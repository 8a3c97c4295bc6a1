/**
 * The lab's example of a service that keeps its data in files: writes one after the other into a tree that is kept on
 * both hosts, and some more when it is asked to stop, as a service that flushes its state does.
 *
 * `file-service.ts --tree FOLDER`: each file is `NODE-NUMBER`, so that what either host wrote can be told apart.
 */

import { mkdirSync, readdirSync, renameSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { parseArgs } from 'node:util'

const EVERY_MS = 20
/** Written at the end: a planned switchover must not lose them. */
const LAST_WORDS = 100
const folder = 'written'

function options(): { tree: string; node: string } {
  const { values } = parseArgs({ options: { tree: { type: 'string' } } })
  if (values.tree === undefined) throw new Error('--tree names the folder to write into.')
  return { tree: values.tree, node: process.env.UNDERSTUDY_NODE ?? 'x' }
}

async function main(): Promise<void> {
  const { tree, node } = options()
  const at = (...names: string[]): string => join(tree, folder, ...names)
  mkdirSync(at(), { recursive: true })
  let number = readdirSync(at()).filter(name => name.startsWith(`${node}-`)).length
  const write = (word: string): void => {
    number += 1
    const name = `${node}-${String(number).padStart(6, '0')}${word}`
    writeFileSync(at(`.${name}`), `epoch ${process.env.UNDERSTUDY_EPOCH}, ${name}\n`)
    renameSync(at(`.${name}`), at(name))
  }
  process.on('SIGTERM', () => {
    for (let count = 0; count < LAST_WORDS; count += 1) write('-last')
    process.exit(0)
  })
  for (;;) {
    write('')
    await sleep(EVERY_MS)
  }
}

await main()
