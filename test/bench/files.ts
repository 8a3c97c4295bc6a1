/**
 * `npm run bench:files [-- --json]`: how fast a change of one tree is in its copy, beside lsyncd (no delay) and
 * syncthing in the same run, for trees of 3 000 and 50 000 files. Root; nothing else should run.
 *
 * "Visible" means: the name is in the other tree with the same size and time. Understudy alone has flushed the file to
 * the disk by then; the others do not.
 */
import { execFileSync, spawnSync } from 'node:child_process'
import {
  appendFileSync,
  closeSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  renameSync,
  rmSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { parseArgs } from 'node:util'
import { ensureDebianPackages, unsuitable } from '../../infra/dev/debian-packages.ts'
import { type Contender, type Start, startLsyncd, startSyncthing, startUnderstudy, usage } from './files-contenders.ts'

const starts: Record<string, Start> = { understudy: startUnderstudy, lsyncd: startLsyncd, syncthing: startSyncthing }
const bigMb = 200
const manyFiles = 2000
/** A contender that has not shown a change by then is said to need longer. */
const limitMs = 20_000
const seedLimitMs = 240_000
const idleMs = 8_000
const smallBytes = 4096

type Figures = Record<string, number | string | boolean | null>

const visible = (it: Contender, name: string): boolean => {
  const [from, to] = [stat(join(it.from, name)), stat(join(it.to, name))]
  return from !== null && to !== null && from.size === to.size && from.mtimeNs === to.mtimeNs
}
const stat = (path: string) => lstatSync(path, { bigint: true, throwIfNoEntry: false }) ?? null

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

function percentiles(samples: readonly (number | null)[]): { p50: number | null; p99: number | null } {
  const sorted = samples.map(ms => ms ?? Number.POSITIVE_INFINITY).sort((x, y) => x - y)
  const at = (share: number): number | null => {
    const ms = sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))]!
    return Number.isFinite(ms) ? round(ms) : null
  }
  return { p50: at(0.5), p99: at(0.99) }
}

function seeder(files: number): (from: string) => void {
  return from => {
    const content = Buffer.alloc(1024, 'seed')
    for (let at = 0; at < files; at += 1) {
      const folder = join(from, `bulk${Math.floor(at / 5000)}`, `d${Math.floor(at / 100) % 50}`)
      if (at % 100 === 0) mkdirSync(folder, { recursive: true })
      writeFileSync(join(folder, `f${at}`), content)
    }
  }
}

const isSame = (it: Contender): boolean => differences(it) === ''
function differences(it: Contender): string {
  const exclude = ['--exclude=/.stfolder']
  const { stdout, status, stderr } = spawnSync(
    'rsync',
    ['-nacXHi', '--delete', ...exclude, `${it.from}/`, `${it.to}/`],
    { encoding: 'latin1' },
  )
  if (status !== 0 && status !== 24) throw new Error(`rsync: ${stderr}`)
  return stdout
}

async function untilSame(it: Contender, limit: number): Promise<boolean> {
  const end = performance.now() + limit
  while (performance.now() < end) {
    if (isSame(it)) return true
    await sleep(300)
  }
  return false
}

/** How fast rsync itself brings the same file to the same disk, as its own process. */
function rsyncRate(folder: string, file: string): { ms: number; flushedMs: number } {
  const took = (args: string[]): number => {
    rmSync(join(folder, 'rsynced'), { force: true })
    const began = performance.now()
    execFileSync('rsync', ['-aW', ...args, file, join(folder, 'rsynced')])
    return performance.now() - began
  }
  const plain = took([])
  const flushed = took(['--fsync'])
  rmSync(join(folder, 'rsynced'), { force: true })
  return { ms: plain, flushedMs: flushed }
}

async function measure(it: Contender, part: { files: number; folder: string; samples: number }): Promise<Figures> {
  const figures: Figures = {}
  const began = performance.now()
  const lastSeeded = (): boolean => countFiles(join(it.to)) >= part.files
  while (!lastSeeded() && performance.now() - began < seedLimitMs) await sleep(50)
  figures.seedS = Math.round(performance.now() - began) / 1000
  figures.seedSame = await untilSame(it, 60_000)
  await sleep(1500)
  const before = usage(it.pids())
  await sleep(idleMs)
  const after = usage(it.pids())
  figures.idleCpuPercent = Math.round(((after.cpuS - before.cpuS) / (idleMs / 1000)) * 1000) / 10
  figures.rssMb = Math.round(after.rssMb)

  const latencies: (number | null)[] = []
  mkdirSync(join(it.from, 'small'))
  await sleep(1500)
  for (let at = 0; at < part.samples; at += 1) {
    writeFileSync(join(it.from, 'small', `f${at}`), Buffer.alloc(smallBytes, at & 0xff))
    latencies.push(await timed(() => visible(it, `small/f${at}`)))
    await sleep(10 + (at % 7) * 5)
  }
  Object.assign(figures, { smallP50Ms: percentiles(latencies).p50, smallP99Ms: percentiles(latencies).p99 })

  mkdirSync(join(it.from, 'burst'))
  await sleep(1500)
  let start = performance.now()
  for (let at = 0; at < manyFiles; at += 1)
    writeFileSync(join(it.from, 'burst', `f${at}`), Buffer.alloc(smallBytes, at & 0xff))
  figures.burstWriteMs = round(performance.now() - start)
  const burst = await timed(() => countNames(join(it.to, 'burst')) === manyFiles)
  figures.burstMs = burst === null ? null : round(performance.now() - start)
  await untilSame(it, limitMs)

  const big = Buffer.alloc(bigMb * 2 ** 20)
  for (let at = 0; at < big.length; at += 509) big[at] = at & 0xff
  start = performance.now()
  writeFileSync(join(it.from, 'big'), big)
  figures.bigWriteMs = round(performance.now() - start)
  figures.bigMs = round(await timed(() => visible(it, 'big'), 60_000))
  await sleep(500)
  const rsync = rsyncRate(part.folder, join(it.from, 'big'))
  Object.assign(figures, { rsyncBigMs: round(rsync.ms), rsyncBigFlushedMs: round(rsync.flushedMs) })
  await sleep(2000)
  appendFileSync(join(it.from, 'big'), Buffer.alloc(smallBytes, 1))
  figures.appendFirstMs = round(await timed(() => visible(it, 'big')))
  await sleep(1500)
  appendFileSync(join(it.from, 'big'), Buffer.alloc(smallBytes, 2))
  figures.appendMs = round(await timed(() => visible(it, 'big')))
  await sleep(1500)
  const fd = openSync(join(it.from, 'big'), 'r+')
  writeSync(fd, Buffer.alloc(smallBytes, 3), 0, smallBytes, (bigMb / 2) * 2 ** 20)
  closeSync(fd)
  figures.overwriteMs = round(await timed(() => visible(it, 'big')))
  await sleep(1500)

  start = performance.now()
  renameSync(join(it.from, 'burst'), join(it.from, 'renamed'))
  const renamed = (): boolean =>
    countNames(join(it.to, 'renamed')) === manyFiles && countNames(join(it.to, 'burst')) === 0
  figures.renameMs = round(await timed(renamed))
  await sleep(1500)
  start = performance.now()
  rmSync(join(it.from, 'renamed'), { recursive: true })
  figures.deleteOwnMs = round(performance.now() - start)
  const deleted = await timed(() => stat(join(it.to, 'renamed')) === null)
  figures.deleteMs = deleted === null ? null : round(performance.now() - start)
  figures.same = await untilSame(it, 60_000)
  if (figures.same === false) figures.difference = differences(it).slice(0, 200)
  return figures
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

async function main(): Promise<number> {
  const { values } = parseArgs({
    options: {
      json: { type: 'boolean', default: false },
      files: { type: 'string', default: '3000,50000' },
      only: { type: 'string', default: Object.keys(starts).join(',') },
      samples: { type: 'string', default: '100' },
    },
  })
  const only = values.only.split(',')
  const unknown = only.find(name => starts[name] === undefined)
  if (unknown !== undefined)
    throw new Error(`--only names "${unknown}"; use some of ${Object.keys(starts).join(', ')}.`)
  const reason = unsuitable()
  if (reason !== null) throw new Error(reason)
  const say = (line: string): void => {
    process.stderr.write(`${line}\n`)
  }
  const peers = (['lsyncd', 'syncthing'] as const).filter(name => only.includes(name))
  await ensureDebianPackages(['rsync', 'openssl', ...peers], { why: 'the benchmark', say })
  const results: Record<string, Record<string, Figures>> = {}
  let allSame = true
  for (const files of values.files.split(',').map(Number)) {
    const column: Record<string, Figures> = {}
    results[String(files)] = column
    for (const name of only) {
      const folder = mkdtempSync('/var/tmp/understudy-bench-files-')
      const it = await starts[name]!(folder, seeder(files))
      try {
        // syncthing needs about a second for each change: fewer of them say as much.
        const samples = name === 'syncthing' ? Math.min(15, Number(values.samples)) : Number(values.samples)
        column[name] = await measure(it, { files, folder, samples })
        say(`${files} files, ${name}: ${JSON.stringify(column[name])}`)
        if (name === 'understudy') allSame &&= column[name].same === true
      } finally {
        await it.stop()
        rmSync(folder, { recursive: true, force: true })
      }
    }
    process.stdout.write(table(files, column))
  }
  if (values.json) process.stdout.write(`${JSON.stringify(results)}\n`)
  return allSame ? 0 : 1
}

function table(files: number, column: Record<string, Figures>): string {
  const names = Object.keys(column)
  const rows = [...new Set(names.flatMap(name => Object.keys(column[name]!)))].filter(row => row !== 'difference')
  const cell = (value: unknown): string => (value === null ? 'too long' : String(value ?? '')).padStart(12)
  const lines = rows.map(row => `  ${row.padEnd(20)}${names.map(name => cell(column[name]![row])).join('')}`)
  return `${files} files${' '.repeat(Math.max(1, 16 - String(files).length))}${names.map(cell).join('')}\n${lines.join('\n')}\n`
}

main().then(
  code => process.exit(code),
  error => {
    process.stderr.write(`${error instanceof Error ? (error.stack ?? error.message) : String(error)}\n`)
    process.exit(1)
  },
)
