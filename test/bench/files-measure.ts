import { execFileSync, spawnSync } from 'node:child_process'
import {
  appendFileSync,
  closeSync,
  lstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  renameSync,
  rmSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Beat } from './files-beat.ts'
import { type Contender, usage } from './files-contenders.ts'
import { summary } from './statistics.ts'

/** What one contender needs for each kind of change. */

const bigMb = 200
const manyFiles = 2000
/** A contender that has not shown a change by then is said to need longer. */
const limitMs = 20_000
const seedLimitMs = 120_000
const sameLimitMs = 60_000
const idleMs = 8_000
/** What one change left to do must not fall into the next measurement. */
const restMs = 1500
const smallBytes = 4096

/** null: not within the limit. */
export type Figure = number | boolean | string | null
export type Figures = Record<string, Figure>

export interface Work {
  files: number
  /** On the file system of the trees. */
  folder: string
  /** Small files, one after the other. */
  samples: number
  /** Of everything else; the figure is the median. */
  rounds: number
  beat: Beat
  progress: (what: string) => void
}

export async function measure(it: Contender, work: Work): Promise<Figures> {
  const figures: Figures = {}
  const note = (what: string, more: Figures): void => {
    Object.assign(figures, more)
    const shown = Object.entries(more).map(([name, value]) => `${name} ${value === null ? 'too long' : value}`)
    work.progress(`${what}: ${shown.join(', ')}`)
  }
  note('the first copy', await seed(it, work))
  note('idle', await idle(it))
  note('small files', await small(it, work))
  const many = await repeat(work.rounds, round => manyChanges(it, `burst${round}`))
  note(`${manyFiles} files`, many)
  note('a large file', await repeat(work.rounds, round => large(it, join(work.folder, `copy${round}`), `big${round}`)))
  note('the heartbeat meanwhile', await lateness(work.beat))
  const difference = await settled(it, sameLimitMs)
  note('at the end', { same: difference === '' })
  if (difference !== '') figures.difference = difference.slice(0, 200)
  return figures
}

/** Each figure's median; null, too long, is the largest. */
async function repeat(rounds: number, run: (round: number) => Promise<Figures>): Promise<Figures> {
  const all: Figures[] = []
  for (let round = 0; round < rounds; round += 1) all.push(await run(round))
  const median = (name: string): Figure => {
    const values = all
      .map(one => one[name])
      .map(value => (typeof value === 'number' ? value : Number.POSITIVE_INFINITY))
    const sorted = values.sort((x, y) => x - y)
    const middle = (sorted.length - 1) / 2
    return finite((sorted[Math.floor(middle)]! + sorted[Math.ceil(middle)]!) / 2)
  }
  return Object.fromEntries(Object.keys(all[0] ?? {}).map(name => [name, median(name)]))
}

async function seed(it: Contender, { files }: Work): Promise<Figures> {
  const began = performance.now()
  while (countFiles(it.to) < files && performance.now() - began < seedLimitMs) await sleep(50)
  const seedMs = performance.now() - began
  const difference = await settled(it, sameLimitMs)
  return { seedS: difference === '' ? Math.round(seedMs) / 1000 : null, seedSame: difference === '' }
}

async function idle(it: Contender): Promise<Figures> {
  await sleep(restMs)
  const before = usage(it.pids())
  await sleep(idleMs)
  const after = usage(it.pids())
  const rssMb = Math.round(after.rssMb)
  return {
    idleCpuPercent: Math.round(((after.cpuS - before.cpuS) / (idleMs / 1000)) * 1000) / 10,
    rssMb,
    rssMoreMb: it.emptyRssMb === null ? '' : rssMb - Math.round(it.emptyRssMb),
  }
}

async function small(it: Contender, { samples }: Work): Promise<Figures> {
  mkdirSync(join(it.from, 'small'))
  await sleep(restMs)
  const latencies: number[] = []
  for (let at = 0; at < samples; at += 1) {
    writeFileSync(join(it.from, 'small', `f${at}`), Buffer.alloc(smallBytes, at & 0xff))
    latencies.push((await timed(() => visible(it, `small/f${at}`))) ?? Number.POSITIVE_INFINITY)
    await sleep(10 + (at % 7) * 5)
  }
  const { median, p99 } = summary(latencies)
  return { smallP50Ms: finite(median), smallP99Ms: finite(p99) }
}

/** A burst of files, their directory renamed, and all of it deleted: each until it is so on the other side. */
async function manyChanges(it: Contender, name: string): Promise<Figures> {
  const renamed = `${name}-renamed`
  mkdirSync(join(it.from, name))
  await sleep(restMs)
  const last = `${name}/f${manyFiles - 1}`
  const burstMs = await fromNow(() => {
    for (let at = 0; at < manyFiles; at += 1)
      writeFileSync(join(it.from, name, `f${at}`), Buffer.alloc(smallBytes, at & 0xff))
    return () => visible(it, last) && countNames(join(it.to, name)) === manyFiles
  })
  await settled(it, limitMs)
  await sleep(restMs)
  const renameMs = await fromNow(() => {
    renameSync(join(it.from, name), join(it.from, renamed))
    return () =>
      stat(join(it.to, name)) === null &&
      stat(join(it.to, renamed, `f${manyFiles - 1}`)) !== null &&
      countNames(join(it.to, renamed)) === manyFiles
  })
  await settled(it, limitMs)
  await sleep(restMs)
  const deleteMs = await fromNow(() => {
    rmSync(join(it.from, renamed), { recursive: true })
    return () => stat(join(it.to, renamed)) === null
  })
  return { burstMs, renameMs, deleteMs }
}

/** A large file as a whole, beside rsync with the same; then some of it. Copies stay, since removing them keeps the disk busy. */
async function large(it: Contender, copy: string, name: string): Promise<Figures> {
  const path = join(it.from, name)
  const big = Buffer.alloc(bigMb * 2 ** 20)
  for (let at = 0; at < big.length; at += 509) big[at] = at & 0xff
  await sleep(restMs)
  writeFileSync(path, big)
  const bigMs = round(await timed(() => visible(it, name), sameLimitMs))
  await settled(it, limitMs)
  const rsyncMs = rsyncTime(path, copy, [])
  const rsyncFlushedMs = rsyncTime(path, `${copy}-flushed`, ['--fsync'])
  await sleep(restMs)
  const appendMs = await fromNow(() => {
    appendFileSync(path, Buffer.alloc(smallBytes, 1))
    return () => visible(it, name)
  })
  await sleep(restMs)
  const overwriteMs = await fromNow(() => {
    const fd = openSync(path, 'r+')
    writeSync(fd, Buffer.alloc(smallBytes, 3), 0, smallBytes, (bigMb / 2) * 2 ** 20)
    closeSync(fd)
    return () => visible(it, name)
  })
  return { bigMs, rsyncMs, rsyncFlushedMs, appendMs, overwriteMs }
}

/** rsync itself, with the same file to the same disk, as whole as it can: what a process of its own needs, start included. */
function rsyncTime(from: string, to: string, args: readonly string[]): number {
  const began = performance.now()
  execFileSync('rsync', ['-aW', ...args, from, to])
  return round(performance.now() - began)!
}

async function lateness(beat: Beat): Promise<Figures> {
  const { p99, max } = await beat.take()
  return { beatLateP99Ms: p99, beatLateMaxMs: max }
}

const visible = (it: Contender, name: string): boolean => {
  const [from, to] = [stat(join(it.from, name)), stat(join(it.to, name))]
  return from !== null && to !== null && from.size === to.size && from.mtimeNs === to.mtimeNs
}
const stat = (path: string) => lstatSync(path, { bigint: true, throwIfNoEntry: false }) ?? null

/** From before a change until it holds on the other side. */
async function fromNow(change: () => () => boolean): Promise<number | null> {
  const began = performance.now()
  const holds = change()
  const ms = await timed(holds)
  return ms === null ? null : round(performance.now() - began)
}

/** Milliseconds until it holds, or null after the limit. */
async function timed(holds: () => boolean, limit = limitMs): Promise<number | null> {
  const began = performance.now()
  while (!holds()) {
    if (performance.now() - began > limit) return null
    await sleep(1)
  }
  return performance.now() - began
}

const round = (ms: number | null): number | null => (ms === null ? null : Math.round(ms * 10) / 10)
const finite = (ms: number): number | null => (Number.isFinite(ms) ? round(ms) : null)

/** What rsync still finds different after the limit; '' when nothing. */
async function settled(it: Contender, limit: number): Promise<string> {
  const end = performance.now() + limit
  for (;;) {
    const found = differences(it)
    if (found === '' || performance.now() > end) return found
    await sleep(300)
  }
}

function differences(it: Contender): string {
  const args = ['-nacXHi', '--delete', ...it.passesOver, `${it.from}/`, `${it.to}/`]
  const { stdout, status, stderr } = spawnSync('rsync', args, { encoding: 'latin1' })
  if (status !== 0 && status !== 24) throw new Error(`rsync: ${stderr}`)
  return stdout
}

function countNames(path: string): number {
  try {
    // Temporary names of rsync and syncthing begin with a dot.
    return readdirSync(path).filter(name => !name.startsWith('.')).length
  } catch {
    return 0
  }
}

function countFiles(path: string): number {
  let count = 0
  for (const entry of readdirSync(path, { withFileTypes: true })) {
    if (entry.name.startsWith('.')) continue
    if (entry.isDirectory()) count += countFiles(join(path, entry.name))
    else count += 1
  }
  return count
}
