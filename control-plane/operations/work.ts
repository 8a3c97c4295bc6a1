import type { z } from 'zod'
import type { operationStep } from '../../shared/contract/api/operations.ts'
import type { Verb } from '../../shared/contract/documents.ts'

/**
 * An operation as plain data: its plan, made when it was asked for, and how far it has come. It lies in one column of
 * its row; whichever instance gets the next answer, or the next look of the sweep, goes on from there.
 */
export type Slot = 'a' | 'b'
export type StepState = z.output<typeof operationStep>['state']

export type StepAction =
  | {
      do: 'command'
      /** The host that gets it; the slot is for people. */
      host: string
      verb: Verb
      args: Record<string, unknown>
      only: { gen?: number; epoch?: number; node?: Slot }
      /** Names a note (the result of an earlier step) that becomes the argument of the same name. */
      needs?: 'sealed'
    }
  | { do: 'await'; condition: AwaitCondition }

/** What the reports of the hosts must show. */
export type AwaitCondition =
  | { kind: 'primary'; slot: Slot; afterEpoch: number }
  | { kind: 'protected' }
  | { kind: 'reporting' }
  /** Of the host's own document. */
  | { kind: 'applied'; slot: Slot; generation: number }

export interface Step {
  id: string
  title: string
  slot: Slot | null
  /** Steps of one stage run side by side; the next stage begins when all of them are done. */
  stage: number
  action: StepAction
  limitSeconds: number
  /** Once it was sent there is no way back: no cancelling any more. */
  pointOfNoReturn: boolean
  state: StepState
  message: string
  percent: number
  jti: string | null
  startedAt: string | null
  deadlineAt: string | null
  endedAt: string | null
}

export interface OperationWork {
  v: 1
  steps: Step[]
  /** Results of steps that later ones need. */
  notes: Record<string, unknown>
  result: Record<string, unknown> | null
  message: string
  /** A window's end: not begun by then, it is called off. */
  notAfter: string | null
}

/** What is known of a pair from its hosts' newest reports, as far as operations wait for it. */
export interface Observation {
  reporting: Record<Slot, boolean>
  primary: Slot | null
  serving: boolean
  epoch: number | null
  gen: number | null
  protection: string
  /** What each host says of its newest document; null: it was not heard lately. */
  applied: Record<
    Slot,
    { observed: number; generation: number; status: 'True' | 'False' | 'Unknown'; why: string } | null
  >
}
