import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { setTimeout as sleep } from 'node:timers/promises'
import type { HostName } from '../../infra/lab/addresses.ts'
import { nowMs } from '../../infra/lab/database-client.ts'
import { readLabState } from '../../infra/lab/lab-state.ts'
import { servingHost, until, untilProtected } from '../../infra/lab/pair.ts'
import { isAlive } from '../../infra/lab/processes.ts'
import { agentPaths, agentStatus, type DatabaseOrigin, understudyCommand } from '../../infra/lab/product.ts'
import type { Step, Trial } from '../../infra/lab/trial.ts'
import { ask } from '../../node-agent/socket/client.ts'
import { otherNode } from '../../shared/protocol/nodes.ts'

/**
 * What is done to the pair, once for each run, and what must come of it. Every scenario begins with a protected pair at a
 * random phase of its heartbeat and ends with a healed one.
 */
export interface Context {
  lab: string
  trial: Trial
  /** The bundled agent to upgrade to: the same code under another version. */
  nextBundle: string
}

export interface Run {
  step: Step
  /** From the fault's end (the host is back, the link whole) until a takeover would succeed again. */
  protectedAgainMs?: number
  /** The longest time in which the primary said that it serves unprotected. */
  unprotectedMs?: number
  /** When roles were changed before a fault that must not move the service; of the writer's clock. */
  changedRolesMs?: number
}

export interface Scenario {
  words: string
  /** To reach with L = 1 s; null: the figure is stated and has no target. */
  targetMs: number | null
  /** To reach in the profile fast, where that is another one. */
  fastTargetMs?: number
  database: DatabaseOrigin
  run: (context: Context) => Promise<Run>
}

const TAKEOVER_LIMIT_MS = 20_000
const REJOIN_LIMIT_MS = 60_000
/** Ten heartbeat intervals of the default profile: the fault falls anywhere in one. */
const PHASE_MS = 1000
/** Longer than a takeover would take to begin, so that one that must not come is seen. */
const WATCH_MS = 2000
const LOOK_EVERY_MS = 10
/** The way to the witness and back, in the row of the far one: another continent. */
export const FAR_WITNESS_MS = 100

const untilServing = (lab: string, host: HostName): Promise<true> =>
  until(TAKEOVER_LIMIT_MS, `Host ${host} does not serve`, async () => ((await servingHost(lab)) === host ? true : null))

async function begin({ lab }: Context): Promise<HostName> {
  const primary = await untilProtected(lab, REJOIN_LIMIT_MS)
  await sleep(Math.random() * PHASE_MS)
  return primary
}

async function restore({ lab, trial }: Context): Promise<number> {
  await trial.heal()
  const beganMs = performance.now()
  await untilProtected(lab, REJOIN_LIMIT_MS)
  return performance.now() - beganMs
}

type Act = (context: Context, primary: HostName) => Promise<unknown>

/** A fault of the primary that the other host takes over from. */
function takeover(words: string, fault: Act, before?: Act): Scenario['run'] {
  return async context => {
    const { lab, trial } = context
    const primary = await begin(context)
    await before?.(context, primary)
    const step = await trial.measure(words, async () => {
      await fault(context, primary)
      await untilServing(lab, otherNode(primary))
    })
    return { step, protectedAgainMs: await restore(context) }
  }
}

/**
 * A fault that must not move the service. Roles are changed before: a primary that loses its backup again and again waits
 * longer each time before it trusts it, and each run is to be a first one.
 */
function stay(words: string, fault: Act): Scenario['run'] {
  return async context => {
    const { lab, trial } = context
    const before = await untilProtected(lab, REJOIN_LIMIT_MS)
    const changedRolesMs = nowMs()
    await switchOver(context, before)
    await untilServing(lab, otherNode(before))
    const primary = await begin(context)
    const watch = watchProtection(lab, primary)
    const step = await trial.measure(words, () => fault(context, primary))
    await restore(context)
    const unprotectedMs = await watch.end()
    const now = await untilProtected(lab, REJOIN_LIMIT_MS)
    if (now !== primary) throw new Error(`${words} moved the service from ${primary} to ${now}, and should not have.`)
    return { step, unprotectedMs, changedRolesMs }
  }
}

/** Asks the primary's agent all the time; one that does not answer, because it is being restarted, is not protected. */
function watchProtection(lab: string, primary: HostName): { end: () => Promise<number> } {
  let ended = false
  let longestMs = 0
  const watching = (async () => {
    let since: number | null = null
    while (!ended) {
      const isProtected = (await agentStatus(lab, primary))?.protection === 'protected'
      const now = performance.now()
      since = isProtected ? null : (since ?? now)
      if (since !== null) longestMs = Math.max(longestMs, now - since)
      await sleep(LOOK_EVERY_MS)
    }
  })()
  return {
    end: async () => {
      ended = true
      await watching
      return longestMs
    },
  }
}

/** As a service manager does it: SIGTERM, wait for the end, start. */
async function restartAgent({ lab, trial }: Context, host: HostName): Promise<void> {
  const pid = readLabState(lab).agentPid[host]
  if (pid === null) throw new Error(`Host ${host} has no agent to restart.`)
  process.kill(pid, 'SIGTERM')
  while (isAlive(pid)) await sleep(2)
  await trial.inject({ kind: 'start-agent', host })
  await until(TAKEOVER_LIMIT_MS, `The agent of ${host} does not answer`, () => agentStatus(lab, host))
}

/**
 * What a start of the agent costs this machine, without an agent that starts: the same program is loaded and ends at the
 * missing configuration, then the bare Node of its state writer. What clients see of this has nothing to do with the pair.
 */
async function startAnotherProgram(): Promise<void> {
  const [node = '', ...args] = understudyCommand(['agent', '--config', '/nonexistent'])
  for (const rest of [args, ['--eval', '0']]) await once(spawn(node, rest, { stdio: 'ignore' }), 'exit')
}

/** The agent comes back as another version of the bundled file. */
async function upgradeAgent(context: Context, host: HostName): Promise<void> {
  const before = process.env.UNDERSTUDY_LAB_BUNDLE
  process.env.UNDERSTUDY_LAB_BUNDLE = context.nextBundle
  try {
    await restartAgent(context, host)
  } finally {
    process.env.UNDERSTUDY_LAB_BUNDLE = before
  }
}

const cutPower: Act = ({ trial }, host) => trial.inject({ kind: 'power', host })
/** What `understudy switchover` asks the agent, without a program that starts in the moment that is measured. */
const switchOver: Act = ({ lab }, host) =>
  ask({ path: agentPaths(lab, host).socket, verb: 'switchover', silenceMs: TAKEOVER_LIMIT_MS })
const andWatch =
  (act: Act): Act =>
  async (context, primary) => {
    await act(context, primary)
    await sleep(WATCH_MS)
  }

const made = { database: 'made' } as const

/** The names are the figures' in the JSON. */
export const scenarios: { readonly [name: string]: Scenario } = {
  calmMs: {
    ...made,
    words: 'no fault: the floor of this measurement',
    targetMs: null,
    run: stay('calm', () => sleep(WATCH_MS)),
  },
  powerCutMs: {
    ...made,
    words: 'power cut of the primary',
    targetMs: 1200,
    fastTargetMs: 450,
    run: takeover('power cut', cutPower),
  },
  postmasterKilledMs: {
    ...made,
    words: 'postmaster killed with -9',
    targetMs: 150,
    run: takeover('postmaster killed', ({ trial }, host) => trial.inject({ kind: 'kill', host, what: 'postmaster' })),
  },
  switchoverMs: {
    ...made,
    words: 'planned switchover, cluster made by the product',
    targetMs: 120,
    run: takeover('planned switchover', switchOver),
  },
  switchoverAdoptedMs: {
    database: 'adopted',
    words: 'planned switchover, adopted cluster (16 MB segments)',
    targetMs: 200,
    run: takeover('planned switchover', switchOver),
  },
  partitionMs: {
    ...made,
    words: 'partition of the primary',
    targetMs: 1200,
    fastTargetMs: 450,
    run: takeover('partition', ({ trial }, member) => trial.inject({ kind: 'isolate', member })),
  },
  backupLostMs: {
    ...made,
    words: 'loss of the backup',
    targetMs: 500,
    run: stay(
      'loss of the backup',
      andWatch(({ trial }, primary) => trial.inject({ kind: 'power', host: otherNode(primary) })),
    ),
  },
  anotherProgramStartsMs: {
    ...made,
    words: 'start of a program as large as the agent (a floor)',
    targetMs: null,
    run: stay('another program starts', andWatch(startAnotherProgram)),
  },
  primaryAgentRestartMs: {
    ...made,
    words: "restart of the primary's agent",
    targetMs: 0,
    run: stay(
      "restart of the primary's agent",
      andWatch((context, primary) => restartAgent(context, primary)),
    ),
  },
  primaryAgentUpgradeMs: {
    ...made,
    words: "upgrade of the primary's agent",
    targetMs: 0,
    run: stay(
      "upgrade of the primary's agent",
      andWatch((context, primary) => upgradeAgent(context, primary)),
    ),
  },
  backupAgentRestartMs: {
    ...made,
    words: "restart of the backup's agent",
    targetMs: 0,
    run: stay(
      "restart of the backup's agent",
      andWatch((context, primary) => restartAgent(context, otherNode(primary))),
    ),
  },
  witnessLostMs: {
    ...made,
    words: 'loss of the witness',
    targetMs: 0,
    run: stay(
      'loss of the witness',
      andWatch(({ trial }) => trial.inject({ kind: 'witness-down' })),
    ),
  },
  powerCutFarWitnessMs: {
    ...made,
    words: `power cut, the witness ${FAR_WITNESS_MS} ms away`,
    targetMs: null,
    run: takeover('power cut, far witness', cutPower, async ({ trial }) => {
      await trial.inject({ kind: 'witness-slow', delayMs: FAR_WITNESS_MS })
      // Until both hosts have measured it, and its first late answers are over.
      await sleep(WATCH_MS)
    }),
  },
}
