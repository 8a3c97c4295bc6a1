import { type ChildProcess, spawn } from 'node:child_process'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { takeEndCalmly } from '../kernel/child-end.ts'
import { encodeFrame } from './writer-frames.ts'

export interface WriterCommand {
  command: string
  /** Folder and file name are added. */
  args: string[]
  /** A file that the writer gets as its next descriptor. */
  native?: number
}

/** A child that is alive but says nothing for this long at its start is not going to. */
const startLimitMs = 10_000
/** For an orderly end; a writer that hangs in the disk gets SIGKILL and keeps its share of the lock until it is gone. */
const stopLimitMs = 1000

export const defaultWriter = (): WriterCommand => ({
  command: process.execPath,
  args: [fileURLToPath(new URL('./writer.ts', import.meta.url))],
})

export type StartResult = { ok: true; writer: WriterProcess } | { ok: false; why: string }

export async function startWriter(part: {
  folder: string
  name: string
  /** Inherited, so that the folder stays locked while the writer lives. */
  lock: number
  command: WriterCommand | undefined
}): Promise<StartResult> {
  const { command, args, native } = part.command ?? defaultWriter()
  const child = spawn(command, [...args, part.folder, part.name], {
    stdio: ['pipe', 'pipe', 'inherit', part.lock, ...(native === undefined ? [] : [native])],
    // It needs nothing of what this process was told.
    env: {},
  })
  takeEndCalmly(child)
  const writer = new WriterProcess(child)
  const why = await writer.ready(startLimitMs)
  if (why === null) return { ok: true, writer }
  child.kill('SIGKILL')
  return { ok: false, why: `the writer of ${part.folder} did not start: ${why}` }
}

export class WriterProcess {
  onDone: (seq: number) => void = () => {}
  onFailed: (why: string) => void = () => {}
  readonly #child: ChildProcess
  #ready: ((why: string | null) => void) | null = null
  #ended: string | null = null
  #gone: Promise<void>

  constructor(child: ChildProcess) {
    this.#child = child
    this.#gone = new Promise(resolve => child.once('close', () => resolve()))
    child.once('error', fault => this.#end(fault.message))
    // Not 'exit': the reason may still be in the pipe.
    child.once('close', (code, signal) => this.#end(`its writer ended (${signal ?? `code ${code}`})`))
    child.stdin?.on('error', fault => this.#end(`its writer takes no input: ${fault.message}`))
    createInterface({ input: child.stdout! }).on('line', line => this.#line(line))
  }

  get pid(): number | undefined {
    return this.#child.pid
  }

  /** null when it runs, otherwise why not. */
  async ready(limitMs: number): Promise<string | null> {
    const timer = setTimeout(() => this.#ready?.(`no word from it within ${limitMs} ms`), limitMs)
    const why = await new Promise<string | null>(resolve => {
      this.#ready = resolve
      if (this.#ended !== null) resolve(this.#ended)
    })
    clearTimeout(timer)
    this.#ready = null
    return why
  }

  write(seq: number, bytes: Buffer): void {
    this.#child.stdin?.write(encodeFrame({ number: seq, bytes }))
  }

  /** @param part.isIdle it has nothing to write: all that an orderly end of it would do is cost the agent's restart its time */
  async stop({ isIdle }: { isIdle: boolean }): Promise<void> {
    this.onFailed = () => {}
    if (isIdle) this.#child.kill('SIGKILL')
    else this.#child.stdin?.end()
    const timer = setTimeout(() => this.#child.kill('SIGKILL'), stopLimitMs)
    // A process that hangs in the disk does not end even so; the agent doesn't wait for it.
    const limit = setTimeout(() => this.#abandon(), 2 * stopLimitMs)
    await Promise.race([this.#gone, new Promise(resolve => this.#abandoned.push(resolve))])
    clearTimeout(timer)
    clearTimeout(limit)
  }

  readonly #abandoned: ((value: unknown) => void)[] = []
  #abandon(): void {
    this.#child.stdout?.destroy()
    this.#child.unref()
    for (const resolve of this.#abandoned) resolve(undefined)
  }

  #line(line: string): void {
    const space = line.indexOf(' ')
    if (line === 'ready') this.#ready?.(null)
    else if (space < 0) this.onDone(Number(line))
    else this.#end(line.slice(space + 1))
  }

  #end(why: string): void {
    if (this.#ended !== null) return
    this.#ended = why
    this.#ready?.(why)
    this.onFailed(why)
  }
}
