import { z } from 'zod'
import { hostReport } from '../report.ts'
import { id, page, pageOf, pairParams, reason, resourceName, sentence, slot, time, verdict } from './common.ts'
import { operation } from './operations.ts'
import { route } from './route.ts'
import { pairSettings, pairSettingsPatch, settingsOfSetUp } from './settings.ts'

/** A verdict that nobody gave is unknown, with the reason. */
export const protection = z.enum(['protected', 'serving but unprotected', 'not serving', 'unknown'])

const hostView = z.object({
  id,
  name: resourceName,
  slot,
  managementAddresses: z.array(z.string()),
  role: z.enum(['primary', 'backup', 'not a member', 'unsettled', 'unknown']),
  connected: verdict,
  lastSeenAt: time.nullable(),
  agentVersion: z.string().nullable(),
  postgresVersion: z.string().nullable(),
  observedGeneration: z.int(),
  applied: z.object({ status: z.enum(['True', 'False', 'Unknown']), why: sentence }),
})

export const pair = z
  .object({
    id,
    name: resourceName,
    state: z.enum(['set up wanted', 'paired', 'unpaired']),
    createdAt: time,
    setUpAt: time.nullable(),
    generation: z.int().describe('Of the settings'),
    settings: pairSettings,
    status: z.object({
      protection,
      since: time.nullable(),
      why: sentence,
      gen: z.int().nullable(),
      epoch: z.int().nullable(),
      primary: slot.nullable(),
      sealed: z.boolean().nullable(),
      maintenance: z.object({ until: time, reason: z.string() }).nullable(),
      replication: z
        .object({
          state: z.string(),
          streaming: verdict,
          lagBytes: z.int().nullable(),
          operation: z.string().nullable(),
        })
        .nullable(),
      witness: z.object({ reach: verdict, voteP99Ms: z.number().nullable(), why: sentence }).nullable(),
      vips: z.array(
        z.object({ address: z.string(), interface: z.string(), network: z.string(), holder: slot.nullable() }),
      ),
      asOf: time.nullable().describe('When the newest report came in'),
    }),
    lastSwitchover: z
      .object({ at: time, kind: z.string(), reason: z.string(), durationMs: z.int().nullable(), by: z.string() })
      .nullable(),
    hosts: z.array(hostView),
  })
  .meta({ id: 'Pair' })
export type PairView = z.output<typeof pair>

export const setUpPair = route({
  id: 'setUpPair',
  method: 'post',
  path: '/v1/pairs',
  tag: 'pairs',
  summary: 'Sets a pair up: prechecks, the first member, the second, protection. Resumable, with progress',
  access: 'pair:manage',
  body: z.strictObject({
    name: resourceName,
    hosts: z.strictObject({ a: id, b: id }),
    primary: slot.default('a').describe('The host that begins, whose data is kept'),
    settings: settingsOfSetUp,
    adopt: z
      .boolean()
      .default(false)
      .describe('The hosts are a pair already, by their own command line: manage it, and set nothing up'),
  }),
  reply: z.object({ pair: id, operation }),
  status: 202,
  acts: true,
})

export const listPairs = route({
  id: 'listPairs',
  method: 'get',
  path: '/v1/pairs',
  tag: 'pairs',
  summary: 'The pairs of the organisation, oldest first',
  access: 'pair:read',
  query: z.strictObject(page),
  reply: pageOf(pair),
})

export const getPair = route({
  id: 'getPair',
  method: 'get',
  path: '/v1/pairs/{pair}',
  tag: 'pairs',
  summary: 'The settings and the state of one pair',
  access: 'pair:read',
  params: pairParams,
  reply: pair,
})

export const changeSettings = route({
  id: 'changeSettings',
  method: 'patch',
  path: '/v1/pairs/{pair}/settings',
  tag: 'pairs',
  summary:
    'Changes settings while the pair serves; the hosts apply them one after the other and revert what fails. `Location` names the operation that shows how far they are',
  access: 'pair:manage',
  params: pairParams,
  body: pairSettingsPatch,
  reply: pair,
  conditional: true,
})

export const admitWitness = route({
  id: 'admitWitness',
  method: 'post',
  path: '/v1/pairs/{pair}/witness-admissions',
  tag: 'pairs',
  summary:
    'Has the witness admit the pair anew, after its database was restored or its store lost: until then there is no automatic takeover',
  access: 'pair:manage',
  params: pairParams,
  body: z.strictObject({ reason }),
  reply: operation,
  status: 202,
  acts: true,
})

export const changeKeys = route({
  id: 'changeKeys',
  method: 'post',
  path: '/v1/pairs/{pair}/key-changes',
  tag: 'pairs',
  summary:
    'A new key for the hosts’ link, another authority and new certificates for their streaming, on one host after the other while the pair serves; taken back on both where one can’t follow',
  access: 'pair:manage',
  params: pairParams,
  body: z.strictObject({ reason }),
  reply: operation,
  status: 202,
  acts: true,
})

export const precheckResult = z.object({
  code: z.string(),
  severity: z.enum(['blocking', 'warning', 'passed', 'unknown']),
  host: slot.nullable(),
  measured: z.string(),
  limit: z.string(),
  remedy: z.string(),
})
export type PrecheckResult = z.output<typeof precheckResult>

export const startPrechecks = route({
  id: 'startPrechecks',
  method: 'post',
  path: '/v1/pairs/{pair}/prechecks',
  tag: 'pairs',
  summary: 'Measures on both hosts what set-up, or the next switchover, needs',
  access: 'pair:operate',
  params: pairParams,
  body: z.strictObject({}).default({}),
  reply: operation,
  status: 202,
  acts: true,
})

export const getPrechecks = route({
  id: 'getPrechecks',
  method: 'get',
  path: '/v1/pairs/{pair}/prechecks',
  tag: 'pairs',
  summary: 'What is known now, from facts and reports, without asking the hosts',
  access: 'pair:read',
  params: pairParams,
  reply: z.object({ asOf: time, passed: z.boolean(), results: z.array(precheckResult) }).meta({ id: 'Prechecks' }),
})

export const getReadiness = route({
  id: 'getReadiness',
  method: 'get',
  path: '/v1/pairs/{pair}/readiness',
  tag: 'pairs',
  summary: 'Would a takeover succeed now, what would it cost, and what stands in the way',
  access: 'pair:read',
  params: pairParams,
  reply: z
    .object({
      takeover: verdict,
      switchover: verdict,
      predicted: z.object({
        powerCutOutageMs: z.number().nullable(),
        databaseDeathOutageMs: z.number().nullable(),
        switchoverOutageMs: z.number().nullable(),
        loss: sentence,
      }),
      obstacles: z.array(z.object({ blocks: z.enum(['takeover', 'switchover', 'both']), why: sentence })),
      warnings: z.array(sentence),
      asOf: time.nullable(),
    })
    .meta({ id: 'Readiness' }),
})

const epochNow = z.int().min(1).describe('The epoch the caller saw: another one means that he decides on old news')

export const switchOver = route({
  id: 'switchOver',
  method: 'post',
  path: '/v1/pairs/{pair}/switchovers',
  tag: 'pairs',
  summary: 'Hands the service to the backup, as planned; refused with reasons where writes or the takeover are at risk',
  access: 'pair:operate',
  params: pairParams,
  body: z.strictObject({
    expectedEpoch: epochNow.optional(),
    target: slot.optional().describe('The host that is to be primary; the backup by default'),
    reason,
    dryRun: z.boolean().default(false).describe('Answers what would happen, and changes nothing'),
    notBefore: time.optional().describe('The beginning of a window; the guards are asked again then'),
    notAfter: time.optional().describe('The end of the window: not begun until then, it is called off'),
  }),
  reply: z.union([
    operation,
    z.object({ dryRun: z.literal(true), allowed: z.boolean(), obstacles: z.array(sentence) }),
  ]),
  status: 202,
  acts: true,
})

export const takeOver = route({
  id: 'takeOver',
  method: 'post',
  path: '/v1/pairs/{pair}/takeovers',
  tag: 'pairs',
  summary: 'Makes a host primary by force, when the other one is off and stays off',
  access: 'pair:force',
  params: pairParams,
  body: z.strictObject({
    host: slot,
    expectedGen: z.int().min(1),
    expectedEpoch: epochNow,
    reason,
    acknowledge: z.strictObject({
      otherHostIsOff: z.literal(true).describe('The caller vouches for it until the state says sealed'),
      lossBytes: z
        .int()
        .min(0)
        .nullable()
        .describe('What may be lost, as readiness or the last known lag says; null where nothing is known'),
      overGen: z
        .exactOptional(z.int().min(1))
        .describe(
          'A gen that was forced on the other host, and of which this host has only heard: everything written in it is given up',
        ),
    }),
  }),
  reply: operation,
  status: 202,
  acts: true,
})

/** A forgotten maintenance must not leave a pair without automatic takeover for good. */
export const maintenanceMinutesMax = 24 * 60

export const beginMaintenance = route({
  id: 'beginMaintenance',
  method: 'put',
  path: '/v1/pairs/{pair}/maintenance',
  tag: 'pairs',
  summary: 'No automatic takeover for a time; it ends by itself',
  access: 'pair:operate',
  params: pairParams,
  body: z.strictObject({ forMinutes: z.int().min(1).max(maintenanceMinutesMax), reason }),
  reply: operation,
  status: 202,
  conditional: true,
})

export const endMaintenance = route({
  id: 'endMaintenance',
  method: 'delete',
  path: '/v1/pairs/{pair}/maintenance',
  tag: 'pairs',
  summary: 'Ends maintenance before its time',
  access: 'pair:operate',
  params: pairParams,
  reply: operation,
  status: 202,
  conditional: true,
})

export const unpair = route({
  id: 'unpair',
  method: 'post',
  path: '/v1/pairs/{pair}/unpair',
  tag: 'pairs',
  summary:
    'Ends the pair without loss: the primary goes on alone, the backup leaves with its data kept. A host that is gone for good is named as lost',
  access: 'pair:manage',
  params: pairParams,
  body: z.strictObject({
    expectedEpoch: epochNow.optional(),
    reason,
    lost: z
      .strictObject({
        host: slot.describe('Gone for good; refused while it is heard'),
        staysOff: z
          .literal(true)
          .describe(
            'The caller vouches for it: the host is retired, and nothing that it knows opens anything any more',
          ),
        survivor: z
          .enum(['goes on', 'is released'])
          .describe(
            'goes on: it is primary, serves, and goes on alone, with keys that the lost host does not have. is released: nothing is asked of it; it need not even be heard',
          ),
      })
      .optional(),
  }),
  reply: operation,
  status: 202,
  acts: true,
  conditional: true,
})

export const replaceMember = route({
  id: 'replaceMember',
  method: 'post',
  path: '/v1/pairs/{pair}/replacements',
  tag: 'pairs',
  summary:
    'Has the host join that was enrolled in the place of a lost one (`replaces`): it copies what the other one serves. Resumable, with progress',
  access: 'pair:manage',
  params: pairParams,
  body: z.strictObject({ host: slot.describe('The place whose host is new'), reason }),
  reply: operation,
  status: 202,
  acts: true,
})

export const getPairReports = route({
  id: 'getPairReports',
  method: 'get',
  path: '/v1/pairs/{pair}/reports',
  tag: 'pairs',
  summary: 'The last report of each host, as it came',
  access: 'pair:read',
  params: pairParams,
  reply: z.object({ data: z.array(z.object({ host: id, slot, receivedAt: time, report: hostReport })) }),
})
