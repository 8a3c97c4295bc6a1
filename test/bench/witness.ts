import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { figuresOf } from '../../shared/figures.ts'
import { admittedPair, ballot, callerOf, firstAccept, valueWith, voterOf, witnessIn } from '../fixtures/witness.ts'
import { printFigures } from './print.ts'

// From send() to the reply, over TLS on loopback: a cas is one durable write, a read none. Client and witness share a process.
const { values } = parseArgs({
  options: { json: { type: 'boolean' }, count: { type: 'string', default: '500' }, folder: { type: 'string' } },
})
const count = Number(values.count)
const folder = mkdtempSync(join(values.folder ?? tmpdir(), 'usl-bench-'))
const unlimited = { perSecond: 1e6, burst: 1e6 }
const witness = await witnessIn(folder, { limits: { perPair: unlimited, perAddress: unlimited } })
const pairs = await Promise.all(
  Array.from({ length: 8 }, async (_, i) => {
    const pair = `bench-${i}`
    const { key, inc } = await admittedPair(witness, pair)
    const voter = voterOf(callerOf(witness, { pair, key }))
    await voter.ask(firstAccept(inc))
    return { inc, voter, n: 1 }
  }),
)

type Pair = (typeof pairs)[number]
async function timed(pair: Pair, kind: 'cas' | 'read'): Promise<number> {
  const { inc, voter } = pair
  const startMs = performance.now()
  const expect = ballot(pair.n)
  if (kind === 'cas') pair.n++
  const req = pair.n
  const reply = await voter.ask(
    kind === 'read'
      ? { kind, req, inc }
      : { kind, req, inc, ballot: ballot(req), expect, value: valueWith(inc, { version: req }) },
  )
  if (typeof reply === 'string') throw new Error(reply)
  return performance.now() - startMs
}

async function series(pair: Pair, kind: 'cas' | 'read', length: number): Promise<number[]> {
  const samples: number[] = []
  for (let i = 0; i < length; i++) samples.push(await timed(pair, kind))
  return samples
}

await series(pairs[0]!, 'cas', 100)
const cas = await series(pairs[0]!, 'cas', count)
const read = await series(pairs[0]!, 'read', count)
const startMs = performance.now()
const together = (await Promise.all(pairs.map(pair => series(pair, 'cas', count / 4)))).flat()
const perSecond = Math.round((together.length / (performance.now() - startMs)) * 1000)
for (const { voter } of pairs) voter.close()
await witness.close()
rmSync(folder, { recursive: true })
printFigures('witness', {
  cas: figuresOf(cas),
  read: figuresOf(read),
  casOfEightPairs: figuresOf(together),
  casPerSecond: perSecond,
})
