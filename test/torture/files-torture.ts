import assert from 'node:assert/strict'
import { type ChildProcessWithoutNullStreams, spawn } from 'node:child_process'
import { existsSync, lstatSync, mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { otherNode } from '../../shared/protocol/nodes.ts'
import { startBeat } from '../bench/files-beat.ts'
import { FilesPair, type Host } from '../fixtures/files-pair.ts'
import { Random } from '../simulation/random.ts'

/**
 * Several programs change a tree at random while links are cut, workers killed and roles changed. Claims: what a barrier
 * acknowledged is there after each takeover, and at the end both trees are the same in everything rsync knows. The seed
 * gives the operations and the faults; when they meet is the machine's.
 */
export interface TortureOptions {
  seed: number
  durationMs: number
  writers: number
  /** In a directory of its own, which the writers change too; 0: there is none. */
  wideNames?: number
  say: (line: string) => void
}

export interface TortureResult {
  faults: Record<string, number>
  barriers: number
  differences: string
  /** How late a beat as the core's was meanwhile, in a process scheduled as the core is. */
  heartbeatLateMs: { p99: number; max: number }
  /** For how much CPU time at most a worker gave nothing else its turn. */
  busiestMs: number
}

const writerProgram = fileURLToPath(new URL('./files-operations.ts', import.meta.url))
/** Longer than any backlog that a fault leaves, on a busy machine. */
const settleLimitMs = 180_000
const barrierLimitMs = 3000
const scrubsMax = 4
const explainedMax = 10
const scrubPauseMs = 1500
const loopLookMs = 250

class Writer {
  readonly name: string
  readonly #child: ChildProcessWithoutNullStreams
  readonly #marked = new Map<string, () => void>()
  readonly #gone: Promise<void>
  #errors = ''

  constructor(tree: string, part: { name: string; seed: number }) {
    this.name = part.name
    const args = ['--disable-warning=ExperimentalWarning', writerProgram, tree, String(part.seed), part.name]
    this.#child = spawn(process.execPath, args)
    this.#child.stdin.on('error', () => undefined)
    this.#child.stderr.on('data', chunk => {
      this.#errors += chunk
    })
    this.#gone = new Promise(resolve => this.#child.once('exit', () => resolve()))
    createInterface({ input: this.#child.stdout }).on('line', line => {
      this.#marked.get(line)?.()
      this.#marked.delete(line)
    })
  }

  /** Resolves when a file of that number is written. */
  mark(number: number): Promise<void> {
    return new Promise(resolve => {
      this.#marked.set(`marked ${number}`, resolve)
      this.#child.stdin.write(`mark ${number}\n`)
    })
  }

  async stop(): Promise<void> {
    this.#child.stdin.end()
    await this.#gone
    assert.equal(this.#errors, '', `a writer failed: ${this.#errors}`)
  }
}

export async function torture(options: TortureOptions): Promise<TortureResult> {
  const pair = await FilesPair.make()
  const beat = startBeat()
  try {
    await pair.startBoth()
    await beat.take()
    const result = await new Torture(pair, options).run()
    const { p99, max } = await beat.take()
    return { ...result, heartbeatLateMs: { p99, max } }
  } catch (error) {
    // What both sides say of themselves tells most of what went wrong.
    for (const host of ['a', 'b'] as const) {
      options.say(`${host}: ${JSON.stringify(await pair.status(host).catch(String))}`)
      options.say(pair.hosts[host]?.notes.slice(-20).join('\n') ?? '')
    }
    throw error
  } finally {
    beat.stop()
    await pair.end()
  }
}

type Fault = 'cut' | 'killSender' | 'killReceiver' | 'takeover' | 'switchover' | 'scrub' | 'barrier'
const weights: Record<Fault, number> = {
  barrier: 10,
  cut: 4,
  killSender: 2,
  killReceiver: 3,
  takeover: 2,
  switchover: 1,
  scrub: 1,
}

class Torture {
  readonly #pair: FilesPair
  readonly #options: TortureOptions
  readonly #random: Random
  readonly #acknowledged: { writer: string; number: number }[] = []
  readonly #faults: Record<string, number> = {}
  #writers: Writer[] = []
  #primary: Host = 'a'
  #epoch = 1
  #marks = 0
  #lives = 0
  #busiestMs = 0

  constructor(pair: FilesPair, options: TortureOptions) {
    this.#pair = pair
    this.#options = options
    this.#random = new Random(options.seed, 'faults')
  }

  async run(): Promise<Omit<TortureResult, 'heartbeatLateMs'>> {
    const { wideNames = 0 } = this.#options
    if (wideNames > 0) this.#makeWide(wideNames)
    const looking = setInterval(() => this.#lookAtLoops(), loopLookMs)
    try {
      return { ...(await this.#tortured()), busiestMs: Math.round(this.#busiestMs) }
    } finally {
      clearInterval(looking)
    }
  }

  #makeWide(names: number): void {
    const folder = this.#pair.path(this.#primary, 'shared', 'wide')
    mkdirSync(folder, { recursive: true })
    for (let i = 0; i < names; i += 1) writeFileSync(join(folder, `one of many ${i}`), '')
  }

  /** A worker that was just killed does not answer. */
  #lookAtLoops(): void {
    for (const host of ['a', 'b'] as const) {
      const look = async (): Promise<void> => {
        const { busiestMs } = await this.#pair.busy(host)
        this.#busiestMs = Math.max(this.#busiestMs, busiestMs)
      }
      look().catch(() => undefined)
    }
  }

  async #tortured(): Promise<Omit<TortureResult, 'heartbeatLateMs' | 'busiestMs'>> {
    this.#startWriters()
    const end = performance.now() + this.#options.durationMs
    while (performance.now() < end) {
      await sleep(this.#random.between(50, 800))
      const fault = this.#random.weighted(weights)
      this.#faults[fault] = (this.#faults[fault] ?? 0) + 1
      this.#options.say(`${fault} (primary ${this.#primary}, epoch ${this.#epoch})`)
      await this.#make(fault)
    }
    await this.#stopWriters()
    this.#pair.mend('a')
    this.#pair.mend('b')
    await this.#pair.barrier(this.#primary, settleLimitMs)
    this.#expectMarks('at the end')
    const contents = this.#pair.differences(this.#primary, 'all but hard links')
    if (contents !== '') this.#explain(contents)
    const differences = contents === '' ? await this.#afterScrubs() : contents
    return { faults: this.#faults, barriers: this.#acknowledged.length, differences }
  }

  /** Both sides' view of what differs, for whoever has to find out why. */
  #explain(itemized: string): void {
    for (const line of itemized.trim().split('\n').slice(0, explainedMax)) {
      const name = Buffer.from(line.slice(line.indexOf(' ') + 1).split(' => ')[0]!, 'latin1').toString('utf8')
      for (const host of ['a', 'b'] as const) {
        const stat = lstatSync(this.#pair.path(host, name.trim()), { throwIfNoEntry: false })
        const seen = stat === undefined ? 'nothing' : `${stat.size} bytes, inode ${stat.ino}, ${stat.nlink} names`
        this.#options.say(`${line}: ${host} has ${seen}, of ${stat?.mtime.toISOString()}`)
      }
    }
  }

  /** In a storm of renames a file may lose the tie to its other names; comparing restores it. */
  async #afterScrubs(): Promise<string> {
    for (let round = 0; round < scrubsMax; round += 1) {
      await this.#pair.host(this.#primary).ask('scrub', {})
      await sleep(scrubPauseMs)
      await this.#pair.barrier(this.#primary, settleLimitMs)
      if (this.#pair.differences(this.#primary) === '') return ''
    }
    return this.#pair.differences(this.#primary)
  }

  #startWriters(): void {
    this.#lives += 1
    this.#writers = Array.from({ length: this.#options.writers }, (_, index) => {
      const seed = this.#options.seed * 1000 + this.#lives * 10 + index
      return new Writer(this.#pair.path(this.#primary), { name: `w${index}`, seed })
    })
  }

  async #stopWriters(): Promise<void> {
    await Promise.all(this.#writers.map(writer => writer.stop()))
  }

  async #make(fault: Fault): Promise<void> {
    const pair = this.#pair
    const [primary, backup] = [this.#primary, otherNode(this.#primary)]
    switch (fault) {
      case 'barrier':
        return this.#barrier()
      case 'cut':
        pair.cut(primary)
        await sleep(this.#random.between(20, 1500))
        return pair.mend(primary)
      case 'killReceiver':
        await pair.host(backup).kill()
        await pair.start(backup)
        await pair.role(backup, { role: 'backup', epoch: this.#epoch })
        return
      case 'killSender':
        await pair.host(primary).kill()
        await pair.start(primary)
        await pair.role(primary, { role: 'primary', epoch: this.#epoch })
        return
      case 'scrub':
        await pair.host(primary).ask('scrub', {})
        return
      case 'takeover':
        return this.#takeover()
      case 'switchover':
        return this.#switchover()
    }
  }

  /** A barrier that answers in time is a promise; one that does not promises nothing. */
  async #barrier(): Promise<void> {
    this.#marks += 1
    const number = this.#marks
    await Promise.all(this.#writers.map(writer => writer.mark(number)))
    const held = await this.#pair.barrier(this.#primary, barrierLimitMs).then(
      () => true,
      error => {
        this.#options.say(`no answer to barrier ${number}: ${error instanceof Error ? error.message : error}`)
        return false
      },
    )
    if (held) for (const { name } of this.#writers) this.#acknowledged.push({ writer: name, number })
  }

  /** The primary is lost at once, with whatever was on its way; the service goes on on the other host. */
  async #takeover(): Promise<void> {
    const pair = this.#pair
    const old = this.#primary
    pair.cut(old)
    await pair.host(old).kill()
    await this.#stopWriters()
    this.#primary = otherNode(old)
    this.#epoch += 1
    await pair.role(this.#primary, { role: 'primary', epoch: this.#epoch })
    this.#expectMarks(`after the takeover by ${this.#primary}`)
    this.#startWriters()
    await sleep(this.#random.between(0, 500))
    pair.mend(old)
    await pair.start(old)
    await pair.role(old, { role: 'backup', epoch: this.#epoch })
  }

  async #switchover(): Promise<void> {
    const pair = this.#pair
    const old = this.#primary
    await this.#stopWriters()
    await pair.barrier(old, settleLimitMs)
    assert.equal(pair.differences(old, 'all but hard links'), '', 'after a drained log the trees differ')
    this.#primary = otherNode(old)
    this.#epoch += 1
    await pair.role(old, { role: 'backup', epoch: this.#epoch })
    await pair.role(this.#primary, { role: 'primary', epoch: this.#epoch })
    this.#startWriters()
  }

  #expectMarks(when: string): void {
    const lost = this.#acknowledged.filter(
      ({ writer, number }) => !existsSync(this.#pair.path(this.#primary, writer, `mark-${number}`)),
    )
    assert.deepEqual(lost, [], `acknowledged barriers are lost ${when}`)
  }
}
