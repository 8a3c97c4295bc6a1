/** Starts and reads the lab's instruments: the writer's load and the observers. Both run outside of every host. */

import {
  closeSync,
  existsSync,
  fstatSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { HOSTS, type HostName, labPaths, namespacePath } from './addresses.ts'
import { groupPath, processesIn } from './control-groups.ts'
import { run } from './exec.ts'
import { nodeCommand, startTool, TOOLS_GROUP } from './fabric.ts'
import { networkOf } from './hosts.ts'
import { type Judgement, judgeObservations, type ServedSpan } from './observations.ts'
import { commandLine, isAlive, signal } from './processes.ts'
import { parseWriteLog, type WriteEvent } from './write-log.ts'

const HERE = import.meta.dirname
/** A start of Node and a first connection, on a busy machine. */
const START_LIMIT_MS = 60_000
/** The writer waits for rows in flight; see STOP_LIMIT_MS there. */
const STOP_LIMIT_MS = 8_000
/** An observer answers a signal at once; one that does not has saved within the last second by itself. */
const SAVE_LIMIT_MS = 200
const SAVE_LOOK_MS = 5

export interface Instrument {
  pid: number
  /** What it writes. */
  file: string
}

async function startInstrument(
  lab: string,
  where: HostName | 'c',
  options: { script: string; args: readonly string[]; file: string; name: string; readyWord: string },
): Promise<Instrument> {
  const log = `${options.name}.log`
  const logFile = join(labPaths(lab).runDir, 'log', log)
  const already = existsSync(logFile) ? readFileSync(logFile, 'utf8').length : 0
  const pid = await startTool(lab, where, nodeCommand(join(HERE, options.script), options.args), log)
  const deadline = performance.now() + START_LIMIT_MS
  for (;;) {
    const said = readFileSync(logFile, 'utf8').slice(already)
    if (said.includes(options.readyWord)) return { pid, file: options.file }
    if (!isAlive(pid) || performance.now() > deadline) throw new Error(`${options.script} did not start: ${said}`)
    await sleep(10)
  }
}

export async function stopInstrument(instrument: Instrument): Promise<void> {
  signal([instrument.pid], 'SIGTERM')
  const deadline = performance.now() + STOP_LIMIT_MS
  while (isAlive(instrument.pid)) {
    if (performance.now() > deadline) signal([instrument.pid], 'SIGKILL')
    await sleep(10)
  }
}

/** Names with a password travel in files of root alone, not in arguments, which everybody can read. */
function secretFile(lab: string, name: string, text: string): string {
  const file = join(labPaths(lab).runDir, name)
  writeFileSync(file, text, { mode: 0o600 })
  return file
}

export interface WriterSettings {
  uri: string
  connections?: number
  intervalMs?: number
  /** Distinguishes several runs in one lab. */
  name?: string
}

/** Begins the load; resolves when it writes. The log is continued where one of this name exists. */
export function startWriter(lab: string, settings: WriterSettings): Promise<Instrument> {
  const { uri, connections = 8, intervalMs = 10, name = 'writer' } = settings
  const file = join(labPaths(lab).runDir, `${name}.acks`)
  const uriFile = secretFile(lab, `${name}.uri`, uri)
  const args = [
    '--uri-file',
    uriFile,
    '--log',
    file,
    '--connections',
    `${connections}`,
    '--interval-ms',
    `${intervalMs}`,
  ]
  return startInstrument(lab, 'c', { script: 'writer.ts', args, file, name, readyWord: 'writing' })
}

export function readWriter(writer: Instrument): WriteEvent[] {
  return existsSync(writer.file) ? parseWriteLog(readFileSync(writer.file, 'utf8')) : []
}

/** Reads on where it last stopped: asked often, a log of some minutes must not be parsed from its beginning each time. */
export class WriteLogReader {
  readonly #file: string
  readonly #events: WriteEvent[] = []
  #offset = 0

  constructor(writer: Instrument) {
    this.#file = writer.file
  }

  /** All events so far, in the order in which they were written. */
  events(): readonly WriteEvent[] {
    if (!existsSync(this.#file)) return this.#events
    const fd = openSync(this.#file, 'r')
    try {
      const more = Buffer.alloc(fstatSync(fd).size - this.#offset)
      const read = more.subarray(0, readSync(fd, more, 0, more.length, this.#offset))
      const whole = read.subarray(0, read.lastIndexOf('\n') + 1)
      this.#offset += whole.length
      for (const event of parseWriteLog(whole.toString('latin1'))) this.#events.push(event)
    } finally {
      closeSync(fd)
    }
    return this.#events
  }
}

export interface ObserverTargets {
  /** As seen by the client: the VIP, and each host's own addresses (named `a:…`, `b:…`). */
  client: { [name: string]: string }
  /** From inside each host's network; nobody looks from where there is nothing to look at. */
  inside: { [host in HostName]: { [name: string]: string } }
  /** Between two requests on one connection; without it the observer's own, 10 ms. */
  rhythmMs?: number
}

function observe(
  lab: string,
  where: HostName | 'c',
  { targets, rhythmMs }: { targets: { [name: string]: string }; rhythmMs: number | undefined },
): Promise<Instrument> {
  // Each start has a file of its own: a host's observer is started anew with each boot.
  const number = readdirSync(labPaths(lab).runDir).filter(name => name.endsWith('.seen')).length + 1
  const name = `observer-${where}-${number}`
  const file = join(labPaths(lab).runDir, `${name}.seen`)
  const args = ['--output', file, '--targets', secretFile(lab, `${name}.targets`, JSON.stringify(targets))]
  if (rhythmMs !== undefined) args.push('--rhythm-ms', `${rhythmMs}`)
  return startInstrument(lab, where, { script: 'observer.ts', args, file, name, readyWord: 'observing' })
}

/** Creates the table the observers write to. Runs in the client's network, to its end. */
export async function prepareObservers(lab: string, uri: string): Promise<void> {
  const args = ['--prepare', '--targets', secretFile(lab, 'prepare.targets', JSON.stringify({ vip: uri }))]
  await run(...networkOf(lab, 'c', nodeCommand(join(HERE, 'observer.ts'), args)))
}

/** The observers that run now: the client's, and one in the network of each host that is on. */
export type Observers = { [where in HostName | 'c']?: Instrument }

/** Starts the client's observer and one in each host's network that is there. */
export async function startObservers(lab: string, targets: ObserverTargets): Promise<Observers> {
  const { client, rhythmMs } = targets
  const there = HOSTS.filter(host => existsSync(namespacePath(lab, host)))
  // Each is a start of Node, which the machine does two of at once.
  const [c, ...inside] = await Promise.all([
    observe(lab, 'c', { targets: client, rhythmMs }),
    ...there.map(host => observeAgain(lab, host, targets)),
  ])
  const observers: Observers = { c }
  for (const [index, host] of there.entries()) {
    const instrument = inside[index] ?? null
    if (instrument !== null) observers[host] = instrument
  }
  return observers
}

/** A host has a new network after each boot, and the observer in the old one sees nothing any more. */
export async function observeAgain(lab: string, host: HostName, all: ObserverTargets): Promise<Instrument | null> {
  const targets = all.inside[host]
  if (Object.keys(targets).length === 0) return null
  return observe(lab, host, { targets, rhythmMs: all.rhythmMs })
}

function runningObservers(lab: string): number[] {
  return processesIn(groupPath(lab, TOOLS_GROUP)).filter(pid =>
    commandLine(pid).some(argument => argument.endsWith('observer.ts')),
  )
}

/** Stops whatever observer of the lab runs, and judges what all of them saw. */
export async function stopObservers(lab: string): Promise<Judgement> {
  for (const pid of runningObservers(lab)) await stopInstrument({ pid, file: '' })
  return judgeObservations(servedSpans(lab))
}

/** What all observers of a lab have seen so far; those that run are asked to save it first. */
export async function servedSpansNow(lab: string): Promise<ServedSpan[]> {
  const asked = runningObservers(lab).map(pid => ({ pid, file: outputOf(pid), was: versionOf(outputOf(pid)) }))
  signal(
    asked.map(({ pid }) => pid),
    'SIGUSR2',
  )
  const deadline = performance.now() + SAVE_LIMIT_MS
  while (asked.some(({ file, was }) => versionOf(file) === was) && performance.now() < deadline)
    await sleep(SAVE_LOOK_MS)
  return servedSpans(lab)
}

const outputOf = (pid: number): string => {
  const words = commandLine(pid)
  return words[words.indexOf('--output') + 1] ?? ''
}

/** Each save is another file of the same name. */
function versionOf(file: string): string {
  try {
    const { ino, mtimeNs } = statSync(file, { bigint: true })
    return `${ino} ${mtimeNs}`
  } catch {
    return 'none yet'
  }
}

function servedSpans(lab: string): ServedSpan[] {
  const { runDir } = labPaths(lab)
  const files = readdirSync(runDir).filter(name => name.endsWith('.seen'))
  return files.flatMap(name => JSON.parse(readFileSync(join(runDir, name), 'utf8')) as ServedSpan[])
}
