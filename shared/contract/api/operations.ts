import { z } from 'zod'
import { id, page, pageOf, sentence, slot, time } from './common.ts'
import { route } from './route.ts'

/** Of one host, whatever its pair does. */
export const hostOperationKinds = [
  'inventory',
  'storageScan',
  'storageDiscovery',
  'initiatorName',
  'vswitch',
  // New keys in the place of those that the host enrolled with.
  'hostKeys',
] as const
export type HostOperationKind = (typeof hostOperationKinds)[number]

export const operationKinds = [
  'setUp',
  'replacement',
  'prechecks',
  'switchover',
  'takeover',
  'maintenance',
  'unpair',
  // New settings taken by both hosts, one after the other.
  'settings',
  'witnessAdmission',
  'keyChange',
  ...hostOperationKinds,
] as const
export type OperationKind = (typeof operationKinds)[number]

/**
 * `unknown`: the command was sent and its outcome was never told. It may have happened: look at the pair before you ask
 * again. It turns into another result when a late answer comes in.
 */
export const operationStates = ['scheduled', 'running', 'succeeded', 'failed', 'cancelled', 'unknown'] as const
export type OperationState = (typeof operationStates)[number]

export const operationStep = z.object({
  id: z.string(),
  title: z.string(),
  host: slot.nullable(),
  state: z.enum(['waiting', 'sent', 'running', 'done', 'failed', 'skipped', 'unknown']),
  message: sentence,
  startedAt: time.nullable(),
  endedAt: time.nullable(),
})

export const operation = z
  .object({
    id,
    kind: z.enum(operationKinds),
    pair: id.nullable(),
    host: id.nullable(),
    state: z.enum(operationStates),
    progress: z.int().min(0).max(100),
    cancellable: z.boolean(),
    steps: z.array(operationStep),
    result: z.record(z.string(), z.unknown()).nullable(),
    message: sentence.describe('Why it ended as it did, or what it waits for'),
    actor: z.string(),
    reason: z.string(),
    createdAt: time,
    startsAt: time,
    endedAt: time.nullable(),
  })
  .meta({ id: 'Operation', description: 'Kept for at least 30 days after its end' })
export type OperationView = z.output<typeof operation>

const operationParams = z.strictObject({ operation: id })

export const listOperations = route({
  id: 'listOperations',
  method: 'get',
  path: '/v1/operations',
  tag: 'operations',
  summary: 'Operations, newest first',
  access: 'operation:read',
  query: z.strictObject({ ...page, pair: id.optional(), state: z.enum(operationStates).optional() }),
  reply: pageOf(operation),
})

export const getOperation = route({
  id: 'getOperation',
  method: 'get',
  path: '/v1/operations/{operation}',
  tag: 'operations',
  summary: 'One operation; `Prefer: wait=10` answers when it has ended, or after that many seconds',
  access: 'operation:read',
  params: operationParams,
  reply: operation,
})

export const cancelOperation = route({
  id: 'cancelOperation',
  method: 'post',
  path: '/v1/operations/{operation}/cancel',
  tag: 'operations',
  summary: 'Calls an operation off while that is possible; 409 past the point of no return',
  access: 'pair:operate',
  params: operationParams,
  reply: operation,
  status: 202,
  acts: true,
})

export const resumeOperation = route({
  id: 'resumeOperation',
  method: 'post',
  path: '/v1/operations/{operation}/resume',
  tag: 'operations',
  summary: 'Goes on with a set-up or a replacement that failed or was cancelled, where it stopped',
  access: 'pair:manage',
  params: operationParams,
  reply: operation,
  status: 202,
  acts: true,
})
