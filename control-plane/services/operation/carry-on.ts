import { and, eq, gt, inArray } from 'drizzle-orm'
import { type Command, commandLifeSecondsMax } from '../../../shared/contract/documents.ts'
import { downTopic } from '../../../shared/contract/topics.ts'
import { ulid } from '../../../shared/ids.ts'
import { enqueue } from '../../broker/outbox.ts'
import type { Transaction } from '../../db/client.ts'
import { command, operation, outbox } from '../../db/schema/index.ts'
import type { Deps } from '../../deps.ts'
import { isTaken, Refusal } from '../../http/problem.ts'
import { acceptSeconds, advance, type OperationEvent } from '../../operations/advance.ts'
import type { Step } from '../../operations/work.ts'
import type { OperationRow } from './operation-view.ts'
import { settle } from './settle.ts'

/**
 * Takes an event into an operation whose row the caller holds: the next state, the commands that follow from it, and
 * what its end means, in one transaction.
 */
export async function carryOn(
  tx: Transaction,
  deps: Deps,
  { row, event }: { row: OperationRow; event: OperationEvent },
): Promise<OperationRow> {
  const now = deps.now()
  const next = advance(row, event, { now, newId: () => ulid(now.getTime()) })
  const over = next.state !== 'running' && next.state !== 'scheduled'
  const [after] = await tx
    .update(operation)
    .set({
      state: next.state,
      work: next.work,
      lookAt: next.lookAt,
      endedAt: over ? (row.endedAt ?? now) : null,
    })
    .where(eq(operation.id, row.id))
    .returning()
    .catch((error: unknown) => {
      // What comes late would have it go on beside another one. Whoever brings it brings it again.
      if (!isTaken(error, 'operation_open_of_pair')) throw error
      throw new Refusal(
        'operation_in_progress',
        'another operation of the pair is under way; this one goes on after it',
      )
    })
  for (const { stepId, jti } of next.send) {
    const step = next.work.steps.find(one => one.id === stepId)
    if (step !== undefined) await sendCommand(tx, deps, { row, step, jti })
  }
  if (over && row.state !== next.state) {
    await recallCommands(tx, { operation: row.id, now })
    return settle(tx, deps, after!)
  }
  return after!
}

/** What no host has taken up is offered no more: an operation that has ended, or was called off, begins nothing. */
async function recallCommands(
  tx: Transaction,
  { operation: of, now }: { operation: string; now: Date },
): Promise<void> {
  const recalled = await tx
    .update(command)
    .set({ expiresAt: now })
    .where(and(eq(command.operation, of), eq(command.phase, ''), gt(command.expiresAt, now)))
    .returning({ jws: command.jws })
  if (recalled.length === 0) return
  const texts = recalled.map(row => row.jws)
  await tx.delete(outbox).where(inArray(outbox.payload, texts))
}

async function sendCommand(
  tx: Transaction,
  deps: Deps,
  { row, step, jti }: { row: OperationRow; step: Step; jti: string },
): Promise<void> {
  if (step.action.do !== 'command') return
  const { host, verb, args, only } = step.action
  const now = deps.now()
  const issuedAt = Math.floor(now.getTime() / 1000)
  const life = Math.min(acceptSeconds, commandLifeSecondsMax)
  const payload: Command = {
    v: 1,
    organisation: row.organisation,
    audience: host,
    pair: row.pair,
    operation: row.id,
    jti,
    verb,
    args,
    issuedAt,
    expiresAt: issuedAt + life,
    only,
    actor: row.actor,
  }
  const jws = await deps.signer.sign('command', payload)
  const expiresAt = new Date((issuedAt + life) * 1000)
  await tx
    .insert(command)
    .values({ jti, organisation: row.organisation, operation: row.id, host, step: step.id, jws, expiresAt })
  await enqueueCommand(tx, { organisation: row.organisation, host, jws, expiresAt }, now)
}

export async function enqueueCommand(
  tx: Transaction,
  part: { organisation: string; host: string; jws: string; expiresAt: Date },
  now: Date,
): Promise<void> {
  const leftSeconds = Math.ceil((part.expiresAt.getTime() - now.getTime()) / 1000)
  if (leftSeconds <= 0) return
  const message = {
    topic: downTopic(part, 'cmd'),
    payload: part.jws,
    qos: 1,
    retain: false,
    expirySeconds: leftSeconds,
    uselessAt: part.expiresAt,
  } as const
  await enqueue(tx, [message], now)
}
