import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { createStateFile, type StateFile } from '../../node-agent/state-file/state-file.ts'
import { figuresOf } from '../../shared/figures.ts'
import { emptyDurable } from '../fixtures/durable.ts'
import { printFigures } from './print.ts'

// From persist() to onPersisted, with the hop to the writer: once one at a time, once while the loop has other work.
const { values } = parseArgs({
  options: { json: { type: 'boolean' }, count: { type: 'string', default: '500' }, folder: { type: 'string' } },
})
const folder = mkdtempSync(join(values.folder ?? tmpdir(), 'usl-bench-'))
let done: () => void = () => {}
const opened = await createStateFile(
  {
    folder,
    now: () => performance.now(),
    onPersisted: () => done(),
    onFailed: (_, why) => {
      throw new Error(why)
    },
  },
  emptyDurable,
)
if (!opened.ok) throw new Error(opened.why)

let seq = 0
async function measure(file: StateFile, count: number): Promise<number[]> {
  const samples: number[] = []
  for (let i = 0; i < count; i++) {
    const startMs = performance.now()
    const finished = new Promise<void>(resolve => {
      done = resolve
    })
    seq++
    file.persist(seq, { ...emptyDurable, promised: seq, lastOwn: seq })
    await finished
    samples.push(performance.now() - startMs)
  }
  return samples
}

await measure(opened.file, 50)
const calm = await measure(opened.file, Number(values.count))
// 2 ms of work in each 10 ms, about what a busy agent does.
const load = setInterval(() => {
  const endMs = performance.now() + 2
  while (performance.now() < endMs);
}, 10)
const busy = await measure(opened.file, Number(values.count))
clearInterval(load)
await opened.file.close(1000)
rmSync(folder, { recursive: true })
printFigures('state-file', { calm: figuresOf(calm), busyLoop: figuresOf(busy) })
