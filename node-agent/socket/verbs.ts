import { z } from 'zod'
import { hasDeparted, isPrimary, knownValue } from '../../shared/protocol/facts.ts'
import type { Agent } from '../agent.ts'
import type { Decision } from '../decisions.ts'
import { evidenceDirOf } from '../evidence-store.ts'
import type { Compared } from '../inventory/compared.ts'
import { maintenanceMaxMs, rememberMaintenance } from '../maintenance-file.ts'
import { markLeft } from '../pair/setup-file.ts'
import { checkReport } from '../report/check-report.ts'
import { metricsText } from '../report/metrics.ts'
import { statusReport } from '../report/status-report.ts'
import { changeHostKey } from '../witness/host-key-change.ts'
import { VerbError } from './messages.ts'
import { type ProgramVerbs, programVerbs } from './program-verbs.ts'
import type { Call, Verb } from './server.ts'
import { quiesceForSwitchover, syncVerbs } from './sync-verbs.ts'

/** What the agent does for the CLI. Reading changes nothing; the rest goes through the core like any other event. */
export function verbsOf(agent: Agent, program: ProgramVerbs): Record<string, Verb> {
  return {
    ...programVerbs(program),
    peerSettings: async () => {
      const said = await agent.peerNews.peerSettings()
      return { said: said.ok ? said.said : null, why: said.ok ? '' : said.why }
    },
    /** Only for root, whose socket this is: it holds a key. */
    newCertificate: async () => {
      const said = await agent.peerNews.certificate()
      if (!said.ok) throw new VerbError('refused', `${agent.state.peer} gives no certificate: ${said.why}`)
      return said.made
    },
    changeHostKey: turns(async () => {
      const { config, peerNews } = agent
      const why = await changeHostKey({ config, tellOther: text => peerNews.tellHostKey(text) }).catch(
        (error: unknown) => {
          throw new VerbError('refused', error instanceof Error ? error.message : String(error))
        },
      )
      agent.note(why)
      return { why }
    }),
    lookAround: async () => {
      agent.lookWanted()
      return null
    },
    /** As it is in force; it holds paths of secrets and none of them. */
    configuration: async () => agent.config,
    hosts: async (): Promise<Compared> => {
      const { own, theirs } = agent.comparison
      return { node: agent.state.node, own, theirs }
    },
    status: async () => statusReport(agent),
    why: args => why(agent, parse(z.strictObject({ limit: z.int().min(1).max(linesMax) }), args)),
    check: async () => {
      const { vip, database } = agent.ports
      const [addresses, unprotectedCommits] = await Promise.all([vip.probe(), database.unprotectedCommits()])
      return checkReport(agent, { addresses, unprotectedCommits })
    },
    metrics: async () => {
      const { gate, database } = agent.ports
      const counters = {
        gate: gate.counters(),
        decisionsDropped: agent.decisions.dropped,
        cancelledWaits: database.cancelledWaits(),
      }
      return metricsText(statusReport(agent), counters)
    },
    events: (args, call) => events(agent, parse(z.strictObject({ last: z.int().min(0).max(linesMax) }), args), call),
    switchover: (args, call) => told(agent, call, () => switchover(agent, parse(switchoverArgs, args))),
    takeover: (args, call) => told(agent, call, () => takeover(agent, parse(takeoverArgs, args))),
    giveUp: async args => {
      const { gen } = parse(z.strictObject({ gen: z.int().min(1) }), args)
      return { why: await accepted(agent.operator({ command: 'giveUp', gen })) }
    },
    maintenance: args =>
      maintenance(agent, parse(z.strictObject({ forMs: z.int().min(0).max(maintenanceMaxMs) }), args)),
    evidenceFolder: async () => ({ folder: evidenceDirOf(agent.config.stateDir) }),
    collectEvidence: (_args, call) => told(agent, call, () => collectEvidence(agent)),
    ...syncVerbs(agent),
    depart: (_args, call) => told(agent, call, () => depart(agent)),
  }
}

/** One at a time: of two at once each would make a key that the other does not know. */
function turns(verb: () => Promise<unknown>): Verb {
  let isUnderWay = false
  return async () => {
    if (isUnderWay) throw new VerbError('refused', 'the key of this host is being changed already')
    isUnderWay = true
    return verb().finally(() => {
      isUnderWay = false
    })
  }
}

/** As many as the ring holds. */
const linesMax = 2000
/** A backup that was asked to take over by a planned switchover: drain, stop, promotion and some retries. */
const switchoverLimitMs = 10_000
/** A forced takeover may have to replay what its standby has not replayed yet. */
const takeoverLimitMs = 60_000
const lookMs = 20

const takeoverArgs = z.strictObject({ gen: z.int().min(0), epoch: z.int().min(0), withWitness: z.boolean() })

function parse<T>(schema: z.ZodType<T>, args: Record<string, unknown>): T {
  const parsed = schema.safeParse(args)
  if (parsed.success) return parsed.data
  throw new VerbError('usage', `the agent does not understand ${JSON.stringify(args)}: is the CLI of another version?`)
}

async function accepted(asked: ReturnType<Agent['operator']>): Promise<string> {
  const { ok, why: sentence } = await asked
  if (ok) return sentence
  throw new VerbError(sentence.includes('outcome is unknown') ? 'unknown outcome' : 'refused', sentence)
}

/** The decisions taken meanwhile are the progress of long work. */
async function told<T>(agent: Agent, call: Call, work: () => Promise<T>): Promise<T> {
  const end = agent.decisions.follow(decision => call.progress(decision))
  try {
    return await work()
  } finally {
    end()
  }
}

async function why(agent: Agent, { limit }: { limit: number }): Promise<unknown> {
  const { node, peer } = agent.state
  const own = agent.decisions.newest(limit)
  const theirs = await agent.peerNews.decisions()
  const mark = (host: string) => (line: Decision) => ({ host, ...line })
  const lines = [...own.map(mark(node)), ...(theirs.ok ? theirs.lines.map(mark(peer)) : [])]
  lines.sort((one, other) => one.wallMs - other.wallMs)
  const { protection, why: sentence } = agent.status()
  return {
    node,
    protection,
    why: sentence,
    /** '' when the other host's lines are here as well. */
    peerMissing: theirs.ok ? '' : theirs.why,
    lines: lines.slice(-limit),
  }
}

function events(agent: Agent, { last }: { last: number }, call: Call): Promise<unknown> {
  for (const decision of agent.decisions.newest(last)) call.progress(decision)
  const end = agent.decisions.follow(decision => call.progress(decision))
  return new Promise(resolve => {
    call.signal.addEventListener('abort', () => {
      end()
      resolve(null)
    })
  })
}

/** `epoch`: of whoever asked with one in mind; another one at the moment it is carried out is refused by the core. */
const switchoverArgs = z.strictObject({ epoch: z.int().min(0).optional() })

async function switchover(agent: Agent, wanted: z.output<typeof switchoverArgs>): Promise<unknown> {
  const known = knownValue(agent.state)
  if (known === null)
    throw new VerbError('refused', 'this host belongs to no pair yet: set it up with `understudy pair init` or `join`')
  const asPrimary = isPrimary(agent.state)
  const { heardAgoMs } = agent.status().peer
  if (!asPrimary && (heardAgoMs === null || heardAgoMs > agent.timing.leaseMs))
    throw new VerbError(
      'refused',
      `${agent.state.peer} is silent and can't hand over. A lost primary is replaced by itself where \`understudy check\` says so; otherwise switch it off and use \`understudy takeover --force\``,
    )
  const resume = await quiesceForSwitchover(agent, asPrimary ? 'here' : 'on the other host')
  const command = agent.operator({ command: 'switchover', epoch: wanted.epoch ?? known.epoch })
  const sentence = await accepted(command).catch((error: unknown) => {
    resume()
    throw error
  })
  if (asPrimary) return { why: sentence }
  const moved = await until(() => isPrimary(agent.state) && agent.status().serving, switchoverLimitMs)
  if (moved) return { why: `${agent.state.node} serves in epoch ${knownValue(agent.state)?.epoch}` }
  await agent.operator({ command: 'cancelSwitchover' })
  throw new VerbError(
    'refused',
    `${agent.state.peer} did not hand over within ${switchoverLimitMs / 1000} s and the wish is taken back; \`understudy check\` on ${agent.state.peer} says what stands in the way`,
  )
}

async function takeover(agent: Agent, args: z.output<typeof takeoverArgs>): Promise<unknown> {
  await accepted(agent.operator({ command: 'force', ...args }))
  const serves = await until(() => agent.status().serving, takeoverLimitMs)
  const { sealed, why: sentence } = agent.status()
  if (!serves) {
    throw new VerbError(
      'unknown outcome',
      `this host is primary now but does not serve after ${takeoverLimitMs / 1000} s: ${sentence}`,
    )
  }
  const { peer } = agent.state
  return {
    sealed,
    why: sealed
      ? `this host serves; another member holds the new generation, so ${peer} cannot come back by itself`
      : `this host serves, but no other member holds the new generation yet: keep ${peer} off until \`understudy status\` says "sealed"`,
  }
}

async function maintenance(agent: Agent, { forMs }: { forMs: number }): Promise<unknown> {
  if (!isPrimary(agent.state)) {
    throw new VerbError(
      'refused',
      `maintenance is a matter of the primary: run this on ${knownValue(agent.state)?.primary ?? 'the other host'}`,
    )
  }
  const until = forMs === 0 ? 0 : agent.ports.clock.bootMs() + forMs
  const sentence = await accepted(agent.files.maintenance(until, agent.ports.clock.bootMs()))
  await rememberMaintenance(agent.config.stateDir, { until, now: agent.moment() })
  if (forMs === 0 && agent.files.why !== '')
    return { why: `maintenance is over, but there is no automatic takeover: ${agent.files.why}` }
  if (forMs === 0) return { why: `${sentence}: automatic takeover again, once the backup is proven to have everything` }
  const end = new Date(agent.ports.clock.wallMs() + forMs).toLocaleTimeString('en-GB')
  return { why: `no automatic takeover until ${end}; \`understudy maintenance off\` ends it sooner` }
}

async function collectEvidence(agent: Agent): Promise<unknown> {
  const kept = await agent.ports.database.collectEvidence()
  if (!kept.ok) throw new VerbError('refused', kept.why)
  return {
    id: kept.id,
    why: kept.id === '' ? kept.why : `${kept.why}; look at it with \`understudy evidence show ${kept.id}\``,
  }
}

/** Out of the register and the database ended, and only then noted: an agent that is started again does not take part. */
async function depart(agent: Agent): Promise<unknown> {
  const { node, peer } = agent.state
  if (isPrimary(agent.state)) await quiesceForSwitchover(agent, 'here')
  await accepted(agent.operator({ command: 'depart' }))
  const out = (): boolean => hasDeparted(agent.state) && agent.state.database.view.process === 'none'
  if (!(await until(out, departLimitMs))) {
    throw new VerbError(
      'unknown outcome',
      `${node} is still a member after ${departLimitMs / 1000} s and goes on asking to be taken out, which needs ${peer} and the witness; \`understudy status\` says when it is done, a restart of the agent calls it off`,
    )
  }
  await markLeft(agent.config.stateDir)
  return { why: `${node} is no member of pair ${agent.config.pair} any more; ${peer} goes on alone, unprotected` }
}
/** A hand-over, a Shrink, a Remove, and the end of a standby. */
const departLimitMs = 20_000

async function until(holds: () => boolean, limitMs: number): Promise<boolean> {
  const end = performance.now() + limitMs
  while (!holds()) {
    if (performance.now() > end) return false
    await new Promise(resolve => setTimeout(resolve, lookMs))
  }
  return true
}
