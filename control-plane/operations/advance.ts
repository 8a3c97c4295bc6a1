import { sentenceMax } from '../../shared/contract/api/common.ts'
import type { OperationState } from '../../shared/contract/api/operations.ts'
import type { Ack } from '../../shared/contract/documents.ts'
import { cutTo } from '../../shared/text.ts'
import { measuredIn } from './measured-results.ts'
import type { Observation, OperationWork, Step } from './work.ts'

/**
 * The next state of an operation: facts in, the decision out as data. It runs in whichever instance gets the event, under
 * the operation's row lock; every event may come late, twice or never.
 */
export type OperationEvent =
  | { kind: 'look'; observed: Observation | null }
  | { kind: 'ack'; ack: Pick<Ack, 'jti' | 'phase' | 'message' | 'percent' | 'result'> }
  | { kind: 'cancel' }
  | { kind: 'resume' }

export interface Operating {
  state: OperationState
  work: OperationWork
}

export interface Advanced extends Operating {
  /** Steps whose command is to be signed and sent now; each gets the id it will carry. */
  send: { stepId: string; jti: string }[]
  /** When to look again if nothing comes before; null: it has ended. */
  lookAt: Date | null
}

export interface AdvanceContext {
  now: Date
  /** Fresh ids for commands. */
  newId: () => string
}

/** Reports come every ten seconds at least; a look between them costs little. */
const lookEverySeconds = 5
/** So long a late answer may still turn an unknown outcome into a known one. */
const hopeSeconds = 15 * 60

/** A command that no host has taken up by then is void; an agent pulls every minute at the latest. */
export const acceptSeconds = 90
/** For the way of the answer. */
const graceSeconds = 10

const ended: readonly OperationState[] = ['succeeded', 'failed', 'cancelled']
export const hasEnded = (state: OperationState): boolean => ended.includes(state) || state === 'unknown'

export function advance(before: Operating, event: OperationEvent, context: AdvanceContext): Advanced {
  const operating = structuredClone(before)
  const send: Advanced['send'] = []
  switch (event.kind) {
    case 'ack':
      takeAck(operating, event.ack, context)
      break
    case 'cancel':
      cancel(operating, context)
      break
    case 'resume':
      resume(operating)
      break
    case 'look':
      if (operating.state === 'running') look(operating, event.observed, context)
      break
  }
  if (operating.state === 'running') go(operating, { send, context })
  return { ...operating, send, lookAt: nextLook(operating, context) }
}

/** Whether calling it off still stops anything. */
export const isCancellable = ({ state, work }: Operating): boolean =>
  state === 'scheduled' ||
  (state === 'running' && !work.steps.some(step => step.pointOfNoReturn && step.state !== 'waiting'))

function takeAck(operating: Operating, ack: (OperationEvent & { kind: 'ack' })['ack'], { now }: AdvanceContext): void {
  const { work } = operating
  const step = work.steps.find(one => one.jti === ack.jti)
  // Of a command that was sent before a resume, or a step that has its answer: nothing changes.
  if (step === undefined || step.state === 'done' || step.state === 'failed' || step.state === 'skipped') return
  step.message = ack.message
  if (ack.percent !== null) step.percent = Math.max(step.percent, ack.percent)
  switch (ack.phase) {
    case 'accepted':
    case 'progress':
      if (step.state === 'sent' && step.startedAt !== null) {
        step.state = 'running'
        step.deadlineAt = after(new Date(step.startedAt), step.limitSeconds).toISOString()
      }
      return
    case 'done':
      finish(step, 'done', now)
      keepResult(work, step, ack.result)
      break
    case 'failed':
    case 'refused':
      finish(step, 'failed', now)
      break
  }
  // A late answer makes an unknown outcome a known one, and the operation goes on.
  if (operating.state === 'unknown') operating.state = 'running'
}

function keepResult(work: OperationWork, step: Step, result: Record<string, unknown> | null): void {
  if (result === null) return
  if (typeof result.sealed === 'string') work.notes.sealed = result.sealed
  work.notes[step.id] = Object.fromEntries(Object.entries(result).filter(([name]) => name !== 'sealed'))
}

function finish(step: Step, state: 'done' | 'failed' | 'unknown' | 'skipped', now: Date): void {
  step.state = state
  step.endedAt = now.toISOString()
  if (state === 'done') step.percent = 100
}

function look({ work }: Operating, observed: Observation | null, { now }: AdvanceContext): void {
  for (const step of work.steps) {
    if (step.state !== 'sent' && step.state !== 'running') continue
    if (step.action.do === 'await' && observed !== null) {
      const { met, waitsFor, failed } = judge(step.action.condition, observed)
      step.message = waitsFor
      if (met || failed === true) {
        finish(step, met ? 'done' : 'failed', now)
        continue
      }
    }
    if (step.deadlineAt === null || now < new Date(step.deadlineAt)) continue
    if (step.action.do === 'await') {
      finish(step, 'failed', now)
      step.message = `not so within ${step.limitSeconds} s: ${step.message}`
    } else {
      finish(step, 'unknown', now)
      step.message = 'no answer in time: it may have been carried out'
    }
  }
}

function judge(
  condition: (Step['action'] & { do: 'await' })['condition'],
  observed: Observation,
): { met: boolean; waitsFor: string; failed?: true } {
  switch (condition.kind) {
    case 'primary': {
      const { slot, afterEpoch } = condition
      const moved = observed.primary === slot && (observed.epoch ?? 0) > afterEpoch
      return {
        met: moved && observed.serving,
        waitsFor: moved
          ? `host ${slot} is primary in epoch ${observed.epoch} and ${observed.serving ? 'serves' : 'begins to serve'}`
          : `host ${observed.primary ?? '?'} is primary in epoch ${observed.epoch ?? '?'}`,
      }
    }
    case 'protected':
      return { met: observed.protection === 'protected', waitsFor: `the pair is ${observed.protection}` }
    case 'reporting':
      return {
        met: observed.reporting.a && observed.reporting.b && observed.primary !== null,
        waitsFor: `reports of a: ${observed.reporting.a ? 'yes' : 'none'}, of b: ${observed.reporting.b ? 'yes' : 'none'}`,
      }
    case 'applied': {
      const { slot, generation } = condition
      const said = observed.applied[slot]
      if (said === null) return { met: false, waitsFor: `host ${slot} was not heard lately` }
      if (said.observed >= generation) return { met: true, waitsFor: `generation ${said.observed} is in force` }
      // What was said of an older document says nothing of this one.
      if (said.generation < generation) return { met: false, waitsFor: `host ${slot} has not taken it up yet` }
      return said.status === 'False'
        ? { met: false, failed: true, waitsFor: said.why }
        : { met: false, waitsFor: said.why }
    }
  }
}

/** Starts what may start, and ends the operation when its steps say so. */
function go(operating: Operating, { send, context }: { send: Advanced['send']; context: AdvanceContext }): void {
  const { work } = operating
  for (;;) {
    const failed = work.steps.find(step => step.state === 'failed')
    if (failed !== undefined) {
      operating.state = 'failed'
      work.message = `${failed.title}: ${failed.message}`
      return
    }
    const unknown = work.steps.find(step => step.state === 'unknown')
    if (unknown !== undefined) {
      operating.state = 'unknown'
      work.message = `${unknown.title}: ${unknown.message}. Look at the pair before you ask again`
      return
    }
    const open = work.steps.filter(step => step.state !== 'done' && step.state !== 'skipped')
    if (open.length === 0) {
      operating.state = 'succeeded'
      work.message = 'done'
      return
    }
    const stage = Math.min(...open.map(step => step.stage))
    const blocked = blockingResults(work, stage)
    if (blocked !== null) {
      operating.state = 'failed'
      work.message = blocked
      return
    }
    const next = open.filter(step => step.stage === stage && step.state === 'waiting')
    if (next.length === 0) return
    for (const step of next) begin(step, { work, send, context })
  }
}

/** Measured prechecks stop a set-up before anything is changed. */
function blockingResults(work: OperationWork, stage: number): string | null {
  if (stage !== 1) return null
  const blocking = work.steps
    .filter(step => step.stage === 0 && step.action.do === 'command' && step.action.verb === 'prechecks')
    .flatMap(step => {
      const results = measuredIn(work.notes[step.id])
      if (results === null) return [`host ${step.slot} answered in a form that is not known here`]
      return results
        .filter(one => one.severity === 'blocking')
        .map(one => `${one.code} (host ${step.slot}): ${one.measured}`)
    })
  return blocking.length === 0 ? null : cutTo(`prechecks stand in the way: ${blocking.join('; ')}`, sentenceMax)
}

function begin(
  step: Step,
  { work, send, context }: { work: OperationWork; send: Advanced['send']; context: AdvanceContext },
): void {
  const { now } = context
  step.startedAt = now.toISOString()
  if (step.action.do === 'await') {
    step.state = 'running'
    step.deadlineAt = after(now, step.limitSeconds).toISOString()
    return
  }
  // Until it is accepted its deadline is the command's own end; from then on the work has its time.
  step.deadlineAt = after(now, acceptSeconds + graceSeconds).toISOString()
  if (step.action.needs !== undefined) step.action.args[step.action.needs] = work.notes[step.action.needs]
  step.state = 'sent'
  step.jti = context.newId()
  send.push({ stepId: step.id, jti: step.jti })
}

function cancel(operating: Operating, { now }: AdvanceContext): void {
  if (!isCancellable(operating)) return
  operating.state = 'cancelled'
  operating.work.message = 'called off'
  for (const step of operating.work.steps) {
    if (step.state !== 'done') finish(step, 'skipped', now)
  }
}

/** What is done stays done; the rest begins anew, with new commands. */
function resume(operating: Operating): void {
  operating.state = 'running'
  operating.work.message = ''
  for (const step of operating.work.steps) {
    if (step.state === 'done' && !step.id.startsWith('prechecks')) continue
    Object.assign(step, {
      state: 'waiting',
      message: '',
      percent: 0,
      jti: null,
      startedAt: null,
      deadlineAt: null,
      endedAt: null,
    })
  }
}

function nextLook({ state, work }: Operating, { now }: AdvanceContext): Date | null {
  if (state === 'running') return new Date(now.getTime() + lookEverySeconds * 1000)
  const unknown = work.steps.find(step => step.state === 'unknown')
  if (state !== 'unknown' || unknown?.endedAt === undefined || unknown.endedAt === null) return null
  const until = new Date(new Date(unknown.endedAt).getTime() + hopeSeconds * 1000)
  return until > now ? until : null
}

const after = (at: Date, seconds: number): Date => new Date(at.getTime() + seconds * 1000)

/** In whole percent: each step counts the same. */
export function progressOf({ state, work }: Operating): number {
  if (state === 'succeeded') return 100
  if (work.steps.length === 0) return 0
  const sum = work.steps.reduce((total, step) => total + (step.state === 'done' ? 100 : step.percent), 0)
  return Math.min(99, Math.floor(sum / work.steps.length))
}
