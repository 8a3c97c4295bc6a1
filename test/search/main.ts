/**
 * `npm run check:protocol [-- --seconds N] [--states N] [--start NAME,…] [--jobs N]`: searches the protocol's step function
 * from each prepared state, everything that can happen at a cost, then at the next. 3 minutes by default. Where `--states`
 * alone bounds it, so many from each start, the same states are seen on every machine.
 */

import { Worker } from 'node:worker_threads'
import { argumentsOf } from '../fixtures/arguments.ts'
import type { Report } from './explore.ts'
import { starts } from './starts.ts'
import type { Task } from './worker.ts'

const secondsDefault = 180
/** Hashes, ways and edges of a start stay below 4 GB. */
const statesMax = 1_500_000
const heapMb = 5000
const noLimit = Number.MAX_SAFE_INTEGER

const { values } = argumentsOf({
  options: {
    seconds: { type: 'string' },
    states: { type: 'string' },
    start: { type: 'string' },
    jobs: { type: 'string', default: '2' },
  },
})

const positive = (name: string, text: string | undefined, otherwise: number): number => {
  const n = text === undefined ? otherwise : Number(text)
  if (!(n > 0)) throw new Error(`--${name} wants a number above 0, not "${text}".`)
  return n
}

function wantedStarts(): readonly string[] {
  const names = starts.map(start => start.name)
  const wanted = values.start?.split(',') ?? names
  const unknown = wanted.find(name => !names.includes(name))
  if (unknown !== undefined) throw new Error(`There is no start "${unknown}"; there are ${names.join(', ')}.`)
  return wanted
}

/** A thread that searches; one question at a time. */
class Searcher {
  private readonly worker = new Worker(new URL('./worker.ts', import.meta.url), {
    resourceLimits: { maxOldGenerationSizeMb: heapMb },
  })

  ask(task: Task): Promise<Report> {
    return new Promise((resolve, reject) => {
      this.worker.removeAllListeners()
      this.worker.once('message', resolve)
      this.worker.once('error', reject)
      this.worker.once('exit', code => reject(new Error(`The search of ${task.name} ended with ${code}.`)))
      this.worker.postMessage(task)
    })
  }

  end(): void {
    this.worker.removeAllListeners()
    void this.worker.terminate()
  }
}

function show(name: string, report: Report): string {
  const perSecond = (report.transitions / report.wallMs) * 1000
  return (
    `${name.padEnd(18)} ${report.complete ? 'everything' : `cost ≤ ${report.cost}`}`.padEnd(34) +
    `${report.states.toLocaleString('en')} states, ${report.transitions.toLocaleString('en')} transitions, ` +
    `up to ${report.depth} actions deep, ${report.healed} healed, ${(report.wallMs / 1000).toFixed(1)} s, ${perSecond.toFixed(0)} transitions/s`
  )
}

async function main(): Promise<number> {
  const names = wantedStarts()
  const jobs = positive('jobs', values.jobs, 2)
  const states = positive('states', values.states, statesMax)
  const bySeconds = values.seconds !== undefined || values.states === undefined
  const seconds = bySeconds ? positive('seconds', values.seconds, secondsDefault) : noLimit
  const wallMs = bySeconds ? (seconds * 1000 * jobs) / names.length : noLimit
  const left = [...names]
  const sums = { states: 0, transitions: 0, found: 0 }
  const work = async (): Promise<void> => {
    const searcher = new Searcher()
    for (let name = left.shift(); name !== undefined && sums.found === 0; name = left.shift()) {
      const report = await searcher.ask({ name, limits: { wallMs, states } })
      sums.states += report.states
      sums.transitions += report.transitions
      console.log(show(name, report))
      if (report.found === null) continue
      sums.found++
      const { checker, message, trace, depth } = report.found
      console.log(`\n${checker} does not hold, ${depth} actions from "${name}": ${message}\n\n${trace.join('\n')}\n`)
    }
    searcher.end()
  }
  await Promise.all(Array.from({ length: jobs }, work))
  console.log(
    `\n${names.length} starts, ${sums.states.toLocaleString('en')} states, ${sums.transitions.toLocaleString('en')} transitions: ${sums.found === 0 ? 'every invariant held' : 'an invariant was broken'}.`,
  )
  return sums.found === 0 ? 0 : 1
}

main().then(
  code => process.exit(code),
  error => {
    console.error(error instanceof Error ? error.message : String(error))
    process.exit(2)
  },
)
