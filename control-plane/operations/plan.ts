import type { PairSettings } from '../../shared/contract/api/settings.ts'
import type { Verb } from '../../shared/contract/documents.ts'
import { otherNode } from '../../shared/protocol/nodes.ts'
import type { OperationWork, Slot, Step, StepAction } from './work.ts'

/** The plan of each kind of operation: what is asked of whom, in which order, and where the way back ends. */
interface PlannedStep {
  id: string
  title: string
  slot: Slot | null
  action: StepAction
  limitSeconds: number
  pointOfNoReturn?: true
}

/** An agent answers a command at once with `accepted`; the limit is for the work. */
const limits = {
  switchover: 60,
  takeover: 120,
  quick: 30,
  prechecks: 60,
  /** A scan waits for each adapter up to ten minutes. */
  host: 660,
  begin: 300,
  join: 300,
  /** A base backup of a large cluster takes hours. */
  protection: 24 * 3600,
  reporting: 120,
  /** Longer than both hosts together take to go back. */
  settings: 600,
} as const

export function workOf(stages: readonly (readonly PlannedStep[])[], notAfter: Date | null = null): OperationWork {
  const steps = stages.flatMap((stage, index): Step[] =>
    stage.map(step => ({
      pointOfNoReturn: false,
      ...step,
      stage: index,
      state: 'waiting',
      message: '',
      percent: 0,
      jti: null,
      startedAt: null,
      deadlineAt: null,
      endedAt: null,
    })),
  )
  return { v: 1, steps, notes: {}, result: null, message: '', notAfter: notAfter?.toISOString() ?? null }
}

interface Pairing {
  hosts: Record<Slot, { id: string; sealingKey: string; addresses: readonly string[] }>
  sync: PairSettings['syncPartition']
}

const commandTo = (
  host: string,
  verb: Verb,
  part: { args?: Record<string, unknown>; only?: { gen?: number; epoch?: number; node?: Slot }; needs?: 'sealed' } = {},
): StepAction => ({
  do: 'command',
  host,
  verb,
  args: part.args ?? {},
  only: part.only ?? {},
  ...(part.needs !== undefined && { needs: part.needs }),
})

export function switchoverPlan(
  pairing: Pairing,
  part: { primary: Slot; gen: number; epoch: number; notAfter: Date | null },
): OperationWork {
  const { primary, gen, epoch, notAfter } = part
  const target = otherNode(primary)
  return workOf(
    [
      [
        {
          id: 'handOver',
          title: `host ${primary} hands the service over`,
          slot: primary,
          action: commandTo(pairing.hosts[primary].id, 'switchover', { only: { gen, epoch, node: primary } }),
          limitSeconds: limits.switchover,
          pointOfNoReturn: true,
        },
      ],
      [
        {
          id: 'serves',
          title: `host ${target} serves`,
          slot: target,
          action: { do: 'await', condition: { kind: 'primary', slot: target, afterEpoch: epoch } },
          limitSeconds: limits.switchover,
        },
      ],
    ],
    notAfter,
  )
}

export function takeoverPlan(
  pairing: Pairing,
  part: { host: Slot; gen: number; epoch: number; withWitness: boolean; overGen?: number | undefined },
): OperationWork {
  const { host, gen, epoch, withWitness, overGen } = part
  return workOf([
    [
      {
        id: 'takeOver',
        title: `host ${host} becomes primary by force`,
        slot: host,
        action: commandTo(pairing.hosts[host].id, 'takeover', {
          args: { withWitness, ...(overGen !== undefined && { overGen }) },
          only: { gen, epoch, node: host },
        }),
        limitSeconds: limits.takeover,
        pointOfNoReturn: true,
      },
    ],
    [
      {
        id: 'serves',
        title: `host ${host} serves`,
        slot: host,
        action: { do: 'await', condition: { kind: 'primary', slot: host, afterEpoch: epoch } },
        limitSeconds: limits.takeover,
      },
    ],
  ])
}

export function maintenancePlan(
  pairing: Pairing,
  { primary, gen, epoch, forMs }: { primary: Slot; gen: number; epoch: number; forMs: number },
): OperationWork {
  return workOf([
    [
      {
        id: 'maintenance',
        title: forMs === 0 ? 'maintenance ends' : 'no automatic takeover for a time',
        slot: primary,
        action: commandTo(pairing.hosts[primary].id, 'maintenance', {
          args: { forMs },
          only: { gen, epoch, node: primary },
        }),
        limitSeconds: limits.quick,
      },
    ],
  ])
}

/** What the hosts are to measure beside each other. */
export interface Measured {
  vips: readonly string[]
  /** null: there is none to ask. */
  witness: { url: string; fingerprint: string | null; limitMs: number } | null
}

export function prechecksPlan(pairing: Pairing, measured: Measured): OperationWork {
  return workOf([prechecks(pairing, measured)])
}

const prechecks = (pairing: Pairing, measured: Measured): PlannedStep[] =>
  (['a', 'b'] as const).map(slot => prechecksOf(slot, pairing, measured))

function prechecksOf(slot: Slot, pairing: Pairing, { vips, witness }: Measured): PlannedStep {
  return {
    id: `prechecks-${slot}`,
    title: `host ${slot} measures`,
    slot,
    action: commandTo(pairing.hosts[slot].id, 'prechecks', {
      args: {
        peerAddresses: [...pairing.hosts[otherNode(slot)].addresses],
        vips: [...vips],
        ...(pairing.sync === null ? {} : { sync: pairing.sync }),
        ...(witness !== null && { witness }),
      },
    }),
    limitSeconds: limits.prechecks,
  }
}

export function setUpPlan(pairing: Pairing, { first, measured }: { first: Slot; measured: Measured }): OperationWork {
  return workOf([prechecks(pairing, measured), ...joining(pairing, first, `host ${first} begins the pair`)])
}

/** The host that is left serves, and so has the virtual addresses: the new one is not asked whether they are free. */
export function replacementPlan(
  pairing: Pairing,
  { slot, measured }: { slot: Slot; measured: Measured },
): OperationWork {
  const left = otherNode(slot)
  return workOf([
    [prechecksOf(slot, pairing, { ...measured, vips: [] })],
    ...joining(pairing, left, `host ${left} lets another machine join`),
  ])
}

function joining(pairing: Pairing, first: Slot, beginning: string): PlannedStep[][] {
  const second = otherNode(first)
  return [
    [
      {
        id: 'begin',
        title: beginning,
        slot: first,
        action: commandTo(pairing.hosts[first].id, 'pairBegin', {
          args: { peerSealingKey: pairing.hosts[second].sealingKey },
        }),
        limitSeconds: limits.begin,
      },
    ],
    [
      {
        id: 'join',
        title: `host ${second} joins`,
        slot: second,
        action: commandTo(pairing.hosts[second].id, 'pairJoin', { needs: 'sealed' }),
        limitSeconds: limits.join,
      },
    ],
    [
      {
        id: 'protected',
        title: 'the copy is complete and the pair is protected',
        slot: null,
        action: { do: 'await', condition: { kind: 'protected' } },
        limitSeconds: limits.protection,
      },
    ],
  ]
}

/** Hosts that are a pair already: nothing is set up, both only have to be heard. */
export function adoptPlan(): OperationWork {
  return workOf([
    [
      {
        id: 'reporting',
        title: 'both hosts report as members of one pair',
        slot: null,
        action: { do: 'await', condition: { kind: 'reporting' } },
        limitSeconds: limits.reporting,
      },
    ],
  ])
}

export function unpairPlan(
  pairing: Pairing,
  { primary, gen, epoch }: { primary: Slot; gen: number; epoch: number },
): OperationWork {
  const backup = otherNode(primary)
  return workOf([
    [
      {
        id: 'backupLeaves',
        title: `host ${backup} leaves, its data kept`,
        slot: backup,
        action: commandTo(pairing.hosts[backup].id, 'pairLeave', { only: { gen, epoch, node: backup } }),
        limitSeconds: limits.begin,
        pointOfNoReturn: true,
      },
    ],
    [aloneStep(pairing, { primary, gen, epoch })],
  ])
}

/** `lost`: the other host is gone for good, and gets no command. Without: it never was a member. */
export function alonePlan(
  pairing: Pairing,
  part: { primary: Slot; gen: number; epoch: number; lost: boolean },
): OperationWork {
  return workOf([[{ ...aloneStep(pairing, part), pointOfNoReturn: true }]])
}

const aloneStep = (
  pairing: Pairing,
  { primary, gen, epoch, lost = false }: { primary: Slot; gen: number; epoch: number; lost?: boolean },
): PlannedStep => ({
  id: 'primaryAlone',
  title: `host ${primary} goes on alone`,
  slot: primary,
  action: commandTo(pairing.hosts[primary].id, 'pairLeave', {
    args: lost ? { otherIsLost: true } : {},
    only: { gen, epoch, node: primary },
  }),
  limitSeconds: limits.begin,
})

/** Settings that both hosts were told; they take them one after the other, the backup first, or go back together. */
export function settingsPlan(
  generations: Record<Slot, number>,
  { protection }: { protection: boolean },
): OperationWork {
  const taken = (['a', 'b'] as const).map(slot => ({
    id: `applied-${slot}`,
    title: `host ${slot} runs with them`,
    slot,
    action: { do: 'await', condition: { kind: 'applied', slot, generation: generations[slot] } } as const,
    limitSeconds: limits.settings,
  }))
  const well = {
    id: 'protected',
    title: 'the pair is protected',
    slot: null,
    action: { do: 'await', condition: { kind: 'protected' } } as const,
    limitSeconds: limits.settings,
  }
  return workOf(protection ? [taken, [well]] : [taken])
}

/** One command to one host, for what concerns no other. */
export function hostPlan(part: {
  host: string
  name: string
  verb: Verb
  args: Record<string, unknown>
}): OperationWork {
  return workOf([
    [
      {
        id: part.verb,
        title: `host ${part.name}: ${part.verb}`,
        slot: null,
        action: commandTo(part.host, part.verb, { args: part.args }),
        limitSeconds: limits.host,
        pointOfNoReturn: true,
      },
    ],
  ])
}
