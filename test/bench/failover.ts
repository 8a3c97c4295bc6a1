/**
 * `npm run bench:failover`: what a client of the pair sees of each fault, in the lab, on real parts, beside the floor of
 * promoting a standby and moving an address, measured in the same run.
 *
 * A figure is the longest time between two acknowledged writes around the fault (eight connections through the VIP),
 * with the fault at a random phase of the heartbeat. `--json`: the last line of stdout is one JSON object.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { parseArgs } from 'node:util'
import { ensureDebianPackages, LAB_PACKAGES, unsuitable } from '../../infra/dev/debian-packages.ts'
import type { HostName } from '../../infra/lab/addresses.ts'
import { heal } from '../../infra/lab/faults.ts'
import { runOnHost } from '../../infra/lab/hosts.ts'
import { down, up } from '../../infra/lab/lab.ts'
import { readLabState } from '../../infra/lab/lab-state.ts'
import { servingHost, until, untilProtected } from '../../infra/lab/pair.ts'
import { isAlive } from '../../infra/lab/processes.ts'
import { agentPaths, PROFILES, type Profile, understudyCommand } from '../../infra/lab/product.ts'
import { Trial } from '../../infra/lab/trial.ts'
import { measureFloor } from './failover-floor.ts'
import { type Summary, summary } from './statistics.ts'

const TAKEOVER_LIMIT_MS = 20_000
const REJOIN_LIMIT_MS = 60_000
/** A whole heartbeat interval and more: the fault falls anywhere in it. */
const PHASE_MS = 1000

interface Context {
  lab: string
  trial: Trial
}
type Scenario = (context: Context) => Promise<number>

const otherOf = (host: HostName): HostName => (host === 'a' ? 'b' : 'a')
const untilServing = (lab: string, host: HostName): Promise<true> =>
  until(TAKEOVER_LIMIT_MS, `Host ${host} does not serve`, async () => ((await servingHost(lab)) === host ? true : null))

/** Makes the fault on the primary and waits until the other host serves. */
async function takeover(
  { lab, trial }: Context,
  name: string,
  fault: (primary: HostName) => Promise<unknown>,
): Promise<number> {
  const primary = await untilProtected(lab, REJOIN_LIMIT_MS)
  await sleep(Math.random() * PHASE_MS)
  const { outage } = await trial.measure(name, async () => {
    await fault(primary)
    await untilServing(lab, otherOf(primary))
  })
  await heal(lab)
  return outage.gapMs
}

/** Makes a fault that must not move the service. */
async function stay(
  { lab, trial }: Context,
  name: string,
  fault: (primary: HostName) => Promise<unknown>,
): Promise<number> {
  const primary = await untilProtected(lab, REJOIN_LIMIT_MS)
  await sleep(Math.random() * PHASE_MS)
  const { outage } = await trial.measure(name, () => fault(primary))
  await heal(lab)
  const now = await untilProtected(lab, REJOIN_LIMIT_MS)
  if (now !== primary) throw new Error(`${name} moved the service from ${primary} to ${now}, and should not have.`)
  return outage.gapMs
}

async function restartAgent(context: Context, host: HostName): Promise<void> {
  const pid = readLabState(context.lab).agentPid[host]
  if (pid === null) throw new Error(`Host ${host} has no agent to restart.`)
  process.kill(pid, 'SIGTERM')
  while (isAlive(pid)) await sleep(5)
  await context.trial.inject({ kind: 'start-agent', host })
}

const scenarios: Record<string, { words: string; run: Scenario; targetMs: number }> = {
  powerCutMs: {
    words: 'power cut of the primary',
    targetMs: 1200,
    run: context => takeover(context, 'power cut', host => context.trial.inject({ kind: 'power', host })),
  },
  postmasterKilledMs: {
    words: 'postmaster killed with -9',
    targetMs: 150,
    run: context =>
      takeover(context, 'postmaster killed', host => context.trial.inject({ kind: 'kill', host, what: 'postmaster' })),
  },
  plannedSwitchoverMs: {
    words: 'planned switchover',
    targetMs: 120,
    run: context =>
      takeover(context, 'planned switchover', host =>
        runOnHost(
          context.lab,
          host,
          understudyCommand(['switchover', '--socket', agentPaths(context.lab, host).socket]),
        ),
      ),
  },
  partitionMs: {
    words: 'partition of the primary',
    targetMs: 1200,
    run: context => takeover(context, 'partition', member => context.trial.inject({ kind: 'isolate', member })),
  },
  backupLostMs: {
    words: 'loss of the backup',
    targetMs: 500,
    run: context =>
      stay(context, 'loss of the backup', async primary => {
        await context.trial.inject({ kind: 'power', host: otherOf(primary) })
        await sleep(1500)
      }),
  },
  primaryAgentRestartMs: {
    words: "restart of the primary's agent",
    targetMs: 0,
    run: context => stay(context, "restart of the primary's agent", primary => restartAgent(context, primary)),
  },
  backupAgentRestartMs: {
    words: "restart of the backup's agent",
    targetMs: 0,
    run: context => stay(context, "restart of the backup's agent", primary => restartAgent(context, otherOf(primary))),
  },
  witnessLostMs: {
    words: 'loss of the witness',
    targetMs: 0,
    run: context =>
      stay(context, 'loss of the witness', async () => {
        await context.trial.inject({ kind: 'witness-down' })
        await sleep(2000)
      }),
  },
  calmMs: {
    words: 'no fault (the floor of the measurement)',
    targetMs: 0,
    run: context => stay(context, 'calm', async () => sleep(1500)),
  },
}

async function measure(options: {
  runs: number
  only: readonly string[]
  profile: Profile
  say: (line: string) => void
}) {
  const { runs, only, profile, say } = options
  const lab = 'bench'
  const figures: Record<string, Summary> = {}
  await up({ name: lab, profile, say })
  try {
    await untilProtected(lab)
    const trial = await Trial.begin(lab)
    for (const name of only) {
      const scenario = scenarios[name]!
      const gaps: number[] = []
      for (let run = 0; run < runs; run += 1) {
        gaps.push(await scenario.run({ lab, trial }))
        say(`${scenario.words}: ${gaps.map(gap => gap.toFixed(0)).join(' ')} ms`)
      }
      figures[name] = summary(gaps)
    }
    await untilProtected(lab, REJOIN_LIMIT_MS)
    const verdict = await trial.end()
    return {
      figures,
      acknowledged: verdict.writes.a.acknowledged,
      lost: verdict.writes.a.lost.length + verdict.writes.b.lost.length,
      doubleServing: verdict.judgement.violations.length,
    }
  } finally {
    await down(lab)
  }
}

async function main(): Promise<number> {
  const { values } = parseArgs({
    options: {
      json: { type: 'boolean', default: false },
      runs: { type: 'string', default: '10' },
      only: { type: 'string', default: Object.keys(scenarios).join(',') },
      profile: { type: 'string', default: 'default' },
    },
  })
  const profile = PROFILES.find(one => one === values.profile)
  const only = values.only.split(',')
  const unknown = only.find(name => scenarios[name] === undefined)
  if (profile === undefined) throw new Error(`--profile is "${values.profile}"; use one of ${PROFILES.join(', ')}.`)
  if (unknown !== undefined)
    throw new Error(`--only names "${unknown}"; use some of ${Object.keys(scenarios).join(',')}.`)
  const reason = unsuitable()
  if (reason !== null) throw new Error(reason)
  const say = (line: string): void => {
    process.stderr.write(`${line}\n`)
  }
  await ensureDebianPackages(LAB_PACKAGES, { why: 'the benchmark', say })
  const floor = await measureFloor(Number(values.runs), say)
  const measured = await measure({ runs: Number(values.runs), only, profile, say })
  const out = (line: string): void => {
    process.stdout.write(`${line}\n`)
  }
  out(`profile ${profile}, ${values.runs} runs each; write outage seen by a client, in ms: median [min … max]`)
  out(`  floor: promote and move the address           ${show(floor)}`)
  for (const name of only)
    out(
      `  ${scenarios[name]!.words.padEnd(46)}${show(measured.figures[name]!)}   to reach: ${scenarios[name]!.targetMs}`,
    )
  out(
    `  ${measured.acknowledged} writes acknowledged, ${measured.lost} lost; two hosts serving at one instant: ${measured.doubleServing}`,
  )
  if (values.json)
    out(
      JSON.stringify({
        profile,
        runs: Number(values.runs),
        floorPromoteAndMoveMs: floor,
        ...measured.figures,
        acknowledged: measured.acknowledged,
        lost: measured.lost,
        doubleServing: measured.doubleServing,
      }),
    )
  return measured.lost === 0 && measured.doubleServing === 0 ? 0 : 1
}

const show = ({ median, min, max }: Summary): string =>
  `${median.toFixed(0).padStart(6)} [${min.toFixed(0)} … ${max.toFixed(0)}]`

main().then(
  code => process.exit(code),
  error => {
    process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n`)
    process.exit(1)
  },
)
