/**
 * What the lab tests stand on: one lab with a pair under load for the tests of a file, each of them a row of the fault
 * matrix with one or the other host as primary. After each row everything is healed, and then every row acknowledged so
 * far must be on both hosts and no two hosts may have served at one instant, whatever the row was about.
 */

import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, type TestContext, test } from 'node:test'
import { HOSTS, type HostName } from '../../infra/lab/addresses.ts'
import { nowMs } from '../../infra/lab/database-client.ts'
import { run } from '../../infra/lab/exec.ts'
import type { Fault } from '../../infra/lab/fault-verbs.ts'
import { runOnHost } from '../../infra/lab/hosts.ts'
import { readWriter } from '../../infra/lab/instruments.ts'
import { down, up } from '../../infra/lab/lab.ts'
import { lastWords, statuses, switchOver, until, untilProtected } from '../../infra/lab/pair.ts'
import { type AgentStatus, agentPaths, agentStatus, understudyCommand } from '../../infra/lab/product.ts'
import { Trial } from '../../infra/lab/trial.ts'
import type { WriteEvent } from '../../infra/lab/write-log.ts'
import { pemsOf } from '../../node-agent/keys/host-key.ts'
import { otherNode } from '../../shared/protocol/nodes.ts'

/** A rejoin by rewind takes some seconds, by a copy of this small cluster too; hold-downs of a flapping backup come on top. */
export const PROTECTED_LIMIT_MS = 90_000

const ANSWER_LIMIT_MS = 15_000

/** One decision of a host, as its agent wrote it down. */
export interface Decision {
  id: number
  wallMs: number
  why: string
}

export { askAgent as ask } from '../../infra/lab/product.ts'

export class Pair {
  readonly lab: string
  readonly trial: Trial

  constructor(lab: string, trial: Trial) {
    this.lab = lab
    this.trial = trial
  }

  inject(fault: Fault): Promise<void> {
    return this.trial.inject(fault)
  }

  status(host: HostName): Promise<AgentStatus | null> {
    return agentStatus(this.lab, host)
  }

  /** The status of an agent that must answer. */
  present(host: HostName): Promise<AgentStatus> {
    return presentStatus(this.lab, host)
  }

  /** Protected, with this host as primary. */
  async makePrimary(host: HostName): Promise<void> {
    const now = await untilProtected(this.lab, PROTECTED_LIMIT_MS)
    if (now === host) return
    await switchOver(this.lab, now)
    assert.equal(await untilProtected(this.lab, PROTECTED_LIMIT_MS), host)
  }

  /** Waits until a host's status is as told. */
  async untilStatus(
    host: HostName,
    options: { limitMs: number; words: string },
    is: (status: AgentStatus) => boolean,
  ): Promise<AgentStatus> {
    let last: AgentStatus | null = null
    try {
      return await until(options.limitMs, `${host} does not become so: ${options.words}`, async () => {
        last = await this.status(host)
        return last !== null && is(last) ? last : null
      })
    } catch (error) {
      throw new Error(`${error instanceof Error ? error.message : String(error)} It says: ${JSON.stringify(last)}`)
    }
  }

  untilServing(host: HostName, limitMs = 15_000): Promise<AgentStatus> {
    return this.untilStatus(host, { limitMs, words: 'serves' }, status => status.serving)
  }

  writes(): WriteEvent[] {
    return readWriter(this.trial.writer)
  }

  /** How many rows were acknowledged in a stretch of time (CLOCK_MONOTONIC, ms). */
  acknowledgedWithin(fromMs: number, toMs = nowMs()): number {
    return this.writes().filter(
      event => event.kind === 'acknowledged' && event.ackMs >= fromMs && event.ackMs <= toMs && event.sentMs >= fromMs,
    ).length
  }

  /** Resolves when a write that was begun after this call is acknowledged. */
  async untilWritten(limitMs: number): Promise<void> {
    const fromMs = nowMs()
    await until(limitMs, 'No write was acknowledged', async () => (this.acknowledgedWithin(fromMs) > 0 ? true : null))
  }

  /** What a host's agent decided, oldest first; also while it is off. */
  decisions(host: HostName, afterId = 0): Decision[] {
    const file = join(agentPaths(this.lab, host).stateDir, 'decisions.jsonl')
    const lines = readFileSync(file, 'utf8').split('\n').slice(0, -1)
    return lines.map(line => JSON.parse(line) as Decision).filter(decision => decision.id > afterId)
  }

  newestDecision(host: HostName): number {
    return this.decisions(host).at(-1)?.id ?? 0
  }
}

/** What an agent says that must answer; a question that a busy machine lets wait for too long is asked again. */
export function presentStatus(lab: string, host: HostName): Promise<AgentStatus> {
  return until(ANSWER_LIMIT_MS, `The agent of ${host} does not answer`, () => agentStatus(lab, host))
}

/** Runs a verb of the product on a host, as a person there would; its output has standard error as well. */
export async function understudyOn(
  pair: Pair,
  host: HostName,
  words: readonly string[],
): Promise<{ exitCode: number; output: string }> {
  const command = understudyCommand([...words, '--socket', agentPaths(pair.lab, host).socket])
  const printed = await runOnHost(pair.lab, host, ['sh', '-c', '"$@" 2>&1; echo "exit code $?"', 'sh', ...command])
  const [, output, exitCode] = /^(.*)exit code (\d+)\n$/s.exec(printed) ?? []
  assert.ok(output !== undefined && exitCode !== undefined, printed)
  return { exitCode: Number(exitCode), output }
}

export interface Row {
  pair: Pair
  primary: HostName
  backup: HostName
  t: TestContext
}

export interface PairTests {
  /**
   * A row of the fault matrix, as a test for each host as primary.
   * @param options.stays the service does not move: only then has it to be moved by a switchover for the second test
   */
  row: (name: string, play: (row: Row) => Promise<void>, options?: { stays: boolean }) => void
  pair: () => Pair
}

/** Registers the lab of a file. @param word a few letters that tell its lab from those of other files */
export function pairUnderLoad(
  word: string,
  labOptions: { diskMib?: number; services?: readonly ('web' | 'files')[] } = {},
): PairTests {
  const lab = `t-${word}-${process.pid}`.slice(0, 16)
  let pair: Pair | null = null
  before(async () => {
    await runBundle()
    await up({ name: lab, ...labOptions })
    pair = new Pair(lab, await Trial.begin(lab))
  })
  after(() => down(lab))
  const present = (): Pair => {
    assert.ok(pair !== null, 'the lab is up')
    return pair
  }
  let first: HostName = 'a'
  return {
    pair: present,
    row: (name, play, options = { stays: false }) => {
      for (const primary of [first, otherNode(first)]) {
        test(`${name}; ${primary} is primary`, t =>
          playRow({ pair: present(), primary, backup: otherNode(primary), t }, play))
      }
      if (options.stays) first = otherNode(first)
    },
  }
}

/**
 * The lab runs what users install, from this tree: one file, which starts in half the time. A run of the whole stage has
 * made it already (test/run.ts).
 */
export async function runBundle(): Promise<void> {
  if (process.env.UNDERSTUDY_LAB_BUNDLE === '1') return
  await run(process.execPath, [join(import.meta.dirname, '../../infra/dev/build.ts')])
  process.env.UNDERSTUDY_LAB_BUNDLE = '1'
}

async function playRow(row: Row, play: (row: Row) => Promise<void>): Promise<void> {
  const { pair, primary, t } = row
  const began = performance.now()
  const lap = (): string => `${((performance.now() - began) / 1000).toFixed(1)} s`
  try {
    await pair.makePrimary(primary)
    t.diagnostic(`ready after ${lap()}`)
    await play(row)
    t.diagnostic(`played after ${lap()}`)
    await settle(pair)
    if (process.env.LAB_TIMELINE === '1')
      t.diagnostic(timeline(pair, Date.now() - (performance.now() - began)).join('\n'))
    t.diagnostic(`settled after ${lap()}`)
  } catch (error) {
    t.diagnostic(await stateOf(pair))
    await pair.trial.heal().catch(() => {})
    throw error
  }
}

/** Heals, waits for protection, and looks for what must never be. */
export async function settle(pair: Pair): Promise<void> {
  await pair.trial.heal()
  await untilProtected(pair.lab, PROTECTED_LIMIT_MS)
  const { writes, judgement } = await pair.trial.verdict()
  for (const host of HOSTS) {
    assert.ok(writes[host].acknowledged > 0, 'rows were acknowledged')
    assert.deepEqual(writes[host].lost, [], `acknowledged rows that host ${host} lacks`)
  }
  assert.deepEqual(judgement.violations, [], 'two hosts served at one instant')
}

/** What a person would look at first when a row fails: both hosts' words, and their decisions of the last minute merged. */
export async function stateOf(pair: Pair): Promise<string> {
  const seen = await statuses(pair.lab)
  const said = HOSTS.map(host => `${host} says: ${JSON.stringify(seen[host])}`)
  return [...said, ...timeline(pair, Date.now() - 60_000), lastWords(pair.lab, 20)].join('\n')
}

function timeline(pair: Pair, fromWallMs: number): string[] {
  const all = HOSTS.flatMap(host => pair.decisions(host).map(decision => ({ host, ...decision })))
  return all
    .filter(decision => decision.wallMs >= fromWallMs)
    .sort((one, other) => one.wallMs - other.wallMs)
    .map(({ host, wallMs, why }) => `${new Date(wallMs).toISOString().slice(11, 23)} ${host}: ${why}`)
}

/** By which a witness of one's own knows a host, and whether the other one holds it for whoever joins in its place. */
export function hostKeyOnDisk(lab: string, host: HostName): { newest: string; isHeldByOther: boolean } {
  const file = (of: HostName, name: string): string => readFileSync(join(agentPaths(lab, of).stateDir, name), 'utf8')
  const text = file(host, 'host.key')
  const { otherHostKeyPem } = JSON.parse(file(otherNode(host), 'setup.json')) as { otherHostKeyPem: string }
  return { newest: pemsOf(text)[0]!, isHeldByOther: otherHostKeyPem === text }
}
