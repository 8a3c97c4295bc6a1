/**
 * `npm run bench:files [-- --json]`: how fast a change of one tree is in its copy, beside lsyncd (no delay) and
 * syncthing in the same run, for trees of 3 000 and of 50 000 files. Root; nothing else should run. Some ten minutes;
 * `--files 3000`, `--only understudy,lsyncd`, `--rounds 1` and `--samples 20` are shorter.
 *
 * "Visible" means: the name is in the other tree with the same size and time. Understudy alone has flushed the file to
 * the disk by then; the others do not.
 */
import { execFileSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { ensureDebianPackages, unsuitable } from '../../infra/dev/debian-packages.ts'
import { softwareVersion } from '../../node-agent/version.ts'
import { startBeat } from './files-beat.ts'
import { type Start, startLsyncd, startSyncthing, startUnderstudy } from './files-contenders.ts'
import { type Figures, measure } from './files-measure.ts'
import { isInterrupted, undoAll, undoneAtEnd, watchForInterruption } from './interruption.ts'

const starts: Record<string, Start> = { understudy: startUnderstudy, lsyncd: startLsyncd, syncthing: startSyncthing }
/** As each says it, with the setting that decides how soon it looks. */
const firstLine = (command: string, argument: string): string =>
  execFileSync(command, [argument], { encoding: 'utf8' }).split('\n')[0]?.trim() ?? ''
const versionOf: Record<string, () => string> = {
  understudy: () => softwareVersion,
  lsyncd: () => `${firstLine('lsyncd', '--version')}, delay 0; ${firstLine('rsync', '--version')}`,
  syncthing: () => `${firstLine('syncthing', '--version')}, fsWatcherDelayS 1 (whole seconds, the least it takes)`,
}
/** syncthing needs one to three seconds for each change: fewer of them say as much. */
const fewSamples = 15

interface Options {
  json: boolean
  sizes: readonly number[]
  only: readonly string[]
  samples: number
  rounds: number
}

function options(): Options {
  const { values } = parseArgs({
    options: {
      json: { type: 'boolean', default: false },
      files: { type: 'string', default: '3000,50000' },
      only: { type: 'string', default: Object.keys(starts).join(',') },
      samples: { type: 'string', default: '100' },
      rounds: { type: 'string', default: '3' },
    },
  })
  const whole = (name: 'samples' | 'rounds' | 'files', text: string, max: number): number => {
    const value = Number(text)
    if (Number.isInteger(value) && value >= 1 && value <= max) return value
    throw new Error(`--${name} is "${values[name]}"; use whole numbers from 1 to ${max}.`)
  }
  const only = values.only.split(',')
  const unknown = only.find(name => starts[name] === undefined)
  if (unknown !== undefined)
    throw new Error(`--only names "${unknown}"; use some of ${Object.keys(starts).join(', ')}.`)
  return {
    json: values.json,
    sizes: values.files.split(',').map(text => whole('files', text, 200_000)),
    only,
    samples: whole('samples', values.samples, 10_000),
    rounds: whole('rounds', values.rounds, 20),
  }
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

async function main(): Promise<number> {
  const wanted = options()
  const reason = unsuitable()
  if (reason !== null) throw new Error(reason)
  const began = performance.now()
  const say = (line: string): void => {
    process.stderr.write(`${String(Math.round((performance.now() - began) / 1000)).padStart(4)} s  ${line}\n`)
  }
  watchForInterruption(say)
  const peers = (['lsyncd', 'syncthing'] as const).filter(name => wanted.only.includes(name))
  await ensureDebianPackages(['rsync', 'openssl', ...peers], { why: 'the benchmark', say })
  const versions = Object.fromEntries(wanted.only.map(name => [name, versionOf[name]!()]))
  for (const [name, version] of Object.entries(versions)) say(`${name}: ${version}`)
  const beat = startBeat()
  const results: Record<string, Record<string, Figures>> = {}
  try {
    for (const files of wanted.sizes) {
      const column: Record<string, Figures> = {}
      results[String(files)] = column
      for (const name of wanted.only) {
        const folder = mkdtempSync('/var/tmp/understudy-bench-files-')
        const remove = (): void => rmSync(folder, { recursive: true, force: true })
        const removed = undoneAtEnd(remove)
        const few = name === 'syncthing'
        const it = await starts[name]!(folder, seeder(files))
        await beat.take()
        try {
          column[name] = await measure(it, {
            files,
            folder,
            samples: few ? Math.min(fewSamples, wanted.samples) : wanted.samples,
            rounds: few ? 1 : wanted.rounds,
            beat,
            progress: what => say(`${files} files, ${name}, ${what}`),
          })
        } finally {
          await it.stop()
          remove()
          removed()
        }
      }
      process.stdout.write(table(files, column))
    }
  } finally {
    beat.stop()
  }
  if (wanted.json) process.stdout.write(`${JSON.stringify({ versions, ...results })}\n`)
  return Object.values(results).every(({ understudy }) => understudy === undefined || understudy.same === true) ? 0 : 1
}

function table(files: number, column: Record<string, Figures>): string {
  const names = Object.keys(column)
  const rows = [...new Set(names.flatMap(name => Object.keys(column[name]!)))].filter(row => row !== 'difference')
  const cell = (value: unknown): string => (value === null ? 'too long' : String(value ?? '')).padStart(12)
  const lines = rows.map(row => `  ${row.padEnd(20)}${names.map(name => cell(column[name]![row])).join('')}`)
  return `${`${files} files`.padEnd(22)}${names.map(cell).join('')}\n${lines.join('\n')}\n`
}

main().then(
  code => process.exit(code),
  async error => {
    if (isInterrupted()) return
    const say = (line: string): void => void process.stderr.write(`${line}\n`)
    say(error instanceof Error ? (error.stack ?? error.message) : String(error))
    await undoAll(say)
    process.exit(1)
  },
)
