import { isDeepStrictEqual } from 'node:util'
import { z } from 'zod'
import type { Vswitch } from '../../shared/hosts/network.ts'
import {
  isJournalThere,
  type JournalPlace,
  readJournalFile,
  removeJournalFile,
  writeJournalFile,
} from '../state-file/change-journal.ts'
import type { Step } from './plan.ts'
import { vswitchSchema } from './record.ts'

/**
 * A change of the host's network that is undone by the host itself unless it is seen to be good: what is done is written
 * down before it is done, so that neither a failure half-way, nor a lost connection, nor the death of this process
 * leaves a host cut off.
 */

/** What a change must not cost: who has answered this host within the time asked about. */
export interface Reach {
  peer: boolean
  witness: boolean
  /** null: there is none to reach. */
  controlPlane: boolean | null
}

export interface ChangeParts {
  /** Where the journal stands: outlives the process, not needed after a boot. */
  folder: string
  boot: string
  /** null: it is done. */
  run: (argv: readonly string[]) => Promise<Failure | null>
  /** An answer from before the change proves nothing about the time after it. */
  reach: (withinMs: number) => Promise<Reach>
  sleep: (ms: number) => Promise<void>
  /** From here on the change has to be taken back if nobody ends it. */
  begun: () => void
  /** A change that did not prove good by then is taken back. */
  confirmMs: number
}

export interface Failure {
  why: string
  /** It was killed: what it was to do may be done all the same. */
  mayBeDone: boolean
}

export type ChangeResult = { ok: true; why: string } | { ok: false; why: string; undone: boolean }

const lookEveryMs = 500
/** The witness is asked each 10 s in calm. */
const reachedBeforeMs = 30_000
/** A calm moment after the first good look: a path that only just answers once is not back. */
const steadyMs = 2000
const journalName = 'network-change.json'

const journalSchema = z.strictObject({
  version: z.literal(1),
  boot: z.string(),
  why: z.string(),
  /** In the order in which they are to be run. */
  undo: z.array(z.array(z.string().max(1024)).max(64)).max(512),
  /** What was remembered of vSwitches before. */
  record: z.array(vswitchSchema),
})

export interface WantedChange {
  why: string
  steps: readonly Step[]
  /** What is remembered of vSwitches before it, and the remembering of what is there after it. */
  record: readonly Vswitch[]
  remember: (record: 'before' | 'after') => Promise<void>
}

/**
 * Applies the steps, waits until everything that was reached before is reached again, and remembers it; or takes the steps
 * back.
 */
export async function applyChange(parts: ChangeParts, change: WantedChange): Promise<ChangeResult> {
  const before = await parts.reach(reachedBeforeMs)
  await writeJournal(parts, change)
  parts.begun()
  const done: Step[] = []
  for (const step of change.steps) {
    const failure = step.argv === null ? null : await parts.run(step.argv)
    if (failure === null || failure.mayBeDone) done.push(step)
    if (failure !== null) return takeBack(parts, { done, why: `\`${step.argv?.join(' ')}\` failed: ${failure.why}` })
  }
  const lost = await confirm(parts, before)
  if (lost !== null) {
    const seconds = parts.confirmMs / 1000
    return takeBack(parts, { done, why: `after the change this host did not reach ${lost} within ${seconds} s` })
  }
  try {
    await change.remember('after')
  } catch (error) {
    // Whatever of it was written already.
    const left = await change.remember('before').then(
      () => [],
      one => [`the files for the next boot: ${messageOf(one)}`],
    )
    return takeBack(parts, { done, why: `it can't be remembered: ${messageOf(error)}`, left })
  }
  removeJournal(parts)
  return { ok: true, why: isSomebody(before) ? reachedAgain : nobodyReached }
}

const messageOf = (error: unknown): string => (error instanceof Error ? error.message : String(error))

const isSomebody = ({ peer, witness, controlPlane }: Reach): boolean => peer || witness || controlPlane === true
export const reachedAgain = 'everything that was reached before is reached'
/** Without an agent, for one: then nothing can be missed either. */
const nobodyReached =
  'nothing is known to have been reached before it, neither the other host nor a witness, so nothing was there to confirm it by'

/** What became of a change whose process has ended. */
export interface Undone {
  why: string
  /** What is to be remembered of vSwitches. */
  record: Vswitch[]
}

/**
 * A change that was under way when its process ended is taken back: at the next start, before the next change, and by
 * whoever waited for it. A boot has done so by itself, but for Open vSwitch. The record is left to be set back. A change
 * that is remembered already was confirmed, and stays: its process, or the power, ended before its journal did.
 */
export async function undoUnfinished(
  parts: Pick<ChangeParts, 'folder' | 'boot' | 'run'>,
  remembered: readonly Vswitch[],
): Promise<Undone | null> {
  const journal = readJournalFile(journalIn(parts.folder), journalSchema)
  if (journal === null) return null
  if (!isDeepStrictEqual(remembered, journal.record)) {
    const why = `the change "${journal.why}" was confirmed and remembered when its process ended: it stays`
    return { why, record: [...remembered] }
  }
  const sameBoot = journal.boot === parts.boot
  const commands = journal.undo.filter(argv => sameBoot || argv[0] === 'ovs-vsctl')
  const failed: string[] = []
  for (const argv of commands) {
    const failure = await runBackwards(parts, argv)
    // Steps that were never done have nothing to take back, and say so.
    if (failure !== null) failed.push(failure.why)
  }
  const left = failed.length > 0 ? ` (${failed.length} of ${commands.length} steps had nothing to take back)` : ''
  const why = `the change "${journal.why}" was under way when its process ended: it was taken back${left}`
  return { why, record: journal.record }
}

async function takeBack(
  parts: ChangeParts,
  { done, why, left = [] }: { done: readonly Step[]; why: string; left?: readonly string[] },
): Promise<ChangeResult> {
  const failed = [...left]
  for (const argv of undoOf(done)) {
    const failure = await runBackwards(parts, argv)
    if (failure !== null) failed.push(`\`${argv.join(' ')}\`: ${failure.why}`)
  }
  removeJournal(parts)
  if (failed.length === 0) return { ok: false, why: `${why}; the host is as it was`, undone: true }
  return { ok: false, why: `${why}; taking it back failed at ${failed.join('; ')}: look at the host`, undone: false }
}

/**
 * ovs-vsctl changes the database at once and then waits for ovs-vswitchd, which may be dead. On the way back it is enough
 * that the database is as it was: whatever takes the daemon's place begins with that (ovs-vsctl(8), "--no-wait").
 */
async function runBackwards({ run }: Pick<ChangeParts, 'run'>, argv: readonly string[]): Promise<Failure | null> {
  const failure = await run(argv)
  const [program = '', ...words] = argv
  return failure?.mayBeDone === true && program === 'ovs-vsctl' ? run([program, '--no-wait', ...words]) : failure
}

const undoOf = (steps: readonly Step[]): string[][] =>
  [...steps].reverse().flatMap(step => (step.undo === null ? [] : [[...step.undo]]))

/** What is missing at the end, in words, or null. */
async function confirm(parts: ChangeParts, before: Reach): Promise<string | null> {
  const began = performance.now()
  let goodMs = 0
  let missing: string[] = []
  // A look takes time as well, and somebody was told how long he is cut off at most.
  for (
    let waitedMs = 0;
    waitedMs < parts.confirmMs;
    waitedMs = Math.max(waitedMs + lookEveryMs, performance.now() - began)
  ) {
    const now = await parts.reach(waitedMs)
    missing = [
      ...(before.peer && !now.peer ? ['the other host'] : []),
      ...(before.witness && !now.witness ? ['the witness'] : []),
      ...(before.controlPlane === true && now.controlPlane !== true ? ['the control plane'] : []),
    ]
    goodMs = missing.length === 0 ? goodMs + lookEveryMs : 0
    if (goodMs >= steadyMs) return null
    await parts.sleep(lookEveryMs)
  }
  return missing.length === 0 ? 'steadily what it reached before' : missing.join(' and ')
}

const writeJournal = (parts: ChangeParts, { why, steps, record }: WantedChange): Promise<void> =>
  writeJournalFile(journalIn(parts.folder), {
    version: 1,
    boot: parts.boot,
    why,
    undo: undoOf(steps),
    record: [...record],
  } satisfies z.input<typeof journalSchema>)

export const isUnfinished = (folder: string): boolean => isJournalThere(journalIn(folder))

export const removeJournal = ({ folder }: Pick<ChangeParts, 'folder'>): void => removeJournalFile(journalIn(folder))

const journalIn = (folder: string): JournalPlace => ({
  folder,
  name: journalName,
  of: 'says how a change of the networks is taken back',
  remedy: 'look at the networks of this host, and remove it then',
})
