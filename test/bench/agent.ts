/**
 * `npm run bench:agent`: what an idle pair costs each host, and how steady the beat of the core is while every core of the
 * machine is busy. The agents run as the bundled file, without a protected service; PostgreSQL is not counted.
 *
 * `--json`: the last line of stdout is one JSON object. `--idle-seconds N` (default 300) and `--seconds N` under load (60).
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { readdirSync, readFileSync } from 'node:fs'
import { cpus } from 'node:os'
import { setTimeout as sleep } from 'node:timers/promises'
import { parseArgs } from 'node:util'
import { ensureDebianPackages, LAB_PACKAGES, unsuitable } from '../../infra/dev/debian-packages.ts'
import { HOSTS, type HostName, namespacePath } from '../../infra/lab/addresses.ts'
import { down, up } from '../../infra/lab/lab.ts'
import { untilProtected } from '../../infra/lab/pair.ts'
import { commandLine, hostProcesses } from '../../infra/lab/processes.ts'
import { agentStatus, PROFILES, type Profile } from '../../infra/lab/product.ts'
import { runProgram } from '../../infra/lab/program.ts'
import { Trial } from '../../infra/lab/trial.ts'
import { otherNode } from '../../shared/protocol/nodes.ts'
import { timingOf } from '../../shared/protocol/timing.ts'
import { watchPeerLink } from './arrivals.ts'
import { buildBundles } from './bundles.ts'
import { decisionsOf } from './failover-timeline.ts'
import { type Summary, summary } from './statistics.ts'

const LAB = 'bench-agent'
/** The first looks and the warm-up of the standby are over by then, and Node has compiled what recurs. */
const SETTLE_MS = 60_000
/** One round of all that recurs: networks and storage are looked at each five minutes, by a process of a fifth of a second. */
const IDLE_S = '300'
const TICKS_PER_SECOND = 100
const STATUS_EVERY_MS = 50

interface HostCost {
  role: 'primary' | 'backup'
  /** Command and resident memory of each process. */
  processes: { command: string; rssMib: number; pssMib: number }[]
  /**
   * Over the agent and all its children. rss: summed, so that Node's own code counts in each process. once: each page of a
   * file once, which is what the host would have back. pss: shared among all that use it, the other lab host too.
   */
  rssMib: number
  onceMib: number
  pssMib: number
  idleCpuPercent: number
}

interface Beat {
  seconds: number
  hogs: number
  /** Between two packets of the primary to the backup on the direct link, at most a heartbeat interval in calm. */
  heartbeatGapMs: Summary
  /** From a packet of the primary to the backup's next one. */
  answerMs: Summary
  /** Between two renewals of the grant in the kernel. */
  renewalGapMs: Summary
  /** What was left of lease and grant at the worst look; 0: it ran out. */
  leaseLeastLeftMs: number
  grantLeastLeftMs: number
  shrinks: number
  takeovers: number
}

const say = (line: string): void => {
  process.stderr.write(`${line}\n`)
}

async function main(): Promise<number> {
  const { values } = parseArgs({
    options: {
      json: { type: 'boolean', default: false },
      'idle-seconds': { type: 'string', default: IDLE_S },
      seconds: { type: 'string', default: '60' },
      profile: { type: 'string', default: 'default' },
    },
  })
  const profile = PROFILES.find(one => one === values.profile)
  const { 'idle-seconds': idleFor, seconds: busyFor } = values
  const [idleSeconds, seconds] = [Number(idleFor), Number(busyFor)] as const
  if (profile === undefined) throw new Error(`--profile is "${values.profile}"; use one of ${PROFILES.join(', ')}.`)
  for (const [option, value] of Object.entries({ seconds: busyFor, 'idle-seconds': idleFor }))
    if (!(Number(value) >= 1 && Number(value) <= 86_400)) throw new Error(`--${option} is "${value}"; use 1 to 86400.`)
  const reason = unsuitable()
  if (reason !== null) throw new Error(reason)
  await ensureDebianPackages(LAB_PACKAGES, { why: 'the benchmark', say })
  await buildBundles()
  await up({ name: LAB, profile, services: [], say })
  try {
    const primary = await untilProtected(LAB)
    await sleep(SETTLE_MS)
    say(`idle for ${idleSeconds} s`)
    const idle = await idleCost(primary, idleSeconds)
    say(`every core busy for ${seconds} s`)
    const beat = await beatUnderLoad(primary, { seconds, profile })
    show({ profile, idle, beat })
    if (values.json) process.stdout.write(`${JSON.stringify({ profile, ...idle, underLoad: beat })}\n`)
    return 0
  } finally {
    await down(LAB)
  }
}

async function idleCost(primary: HostName, seconds: number): Promise<{ primary: HostCost; backup: HostCost }> {
  const before = new Map(HOSTS.map(host => [host, cpuMs(host)]))
  await sleep(seconds * 1000)
  const of = (host: HostName, role: HostCost['role']): HostCost => {
    const pids = hostProcesses(LAB, host, 'agent')
    const processes = pids.map(pid => ({
      command: commandLine(pid).includes('--eval') ? 'state writer' : 'agent',
      ...memoryOf(pid),
    }))
    const sum = (key: 'rssMib' | 'pssMib'): number => round(processes.reduce((total, one) => total + one[key], 0))
    const usedMs = cpuMs(host) - (before.get(host) ?? 0)
    return {
      role,
      processes,
      rssMib: sum('rssMib'),
      onceMib: residentOnceMib(pids),
      pssMib: sum('pssMib'),
      idleCpuPercent: Math.round((usedMs / 1000 / seconds) * 10_000) / 100,
    }
  }
  return { primary: of(primary, 'primary'), backup: of(otherNode(primary), 'backup') }
}

const round = (value: number): number => Math.round(value * 10) / 10

/** proc(5), smaps_rollup. */
function memoryOf(pid: number): { rssMib: number; pssMib: number } {
  const text = readFileSync(`/proc/${pid}/smaps_rollup`, 'utf8')
  const field = (name: string): number =>
    round(Number(new RegExp(`^${name}:\\s+(\\d+) kB`, 'm').exec(text)?.[1]) / 1024)
  return { rssMib: field('Rss'), pssMib: field('Pss') }
}

/** proc(5), smaps: private memory summed, and of each part of a file what the process has that has most of it. */
function residentOnceMib(pids: readonly number[]): number {
  let privateKb = 0
  const ofFiles = new Map<string, number>()
  for (const pid of pids) {
    let part = ''
    let residentKb = 0
    for (const line of readFileSync(`/proc/${pid}/smaps`, 'utf8').split('\n')) {
      const mapping = /^[0-9a-f]+-[0-9a-f]+ \S+ ([0-9a-f]+) (\S+) (\d+)/.exec(line)
      const [name = '', kb = ''] = line.split(/:\s+/)
      if (mapping !== null) part = mapping.slice(1).join(' ')
      else if (name === 'Rss') residentKb = Number.parseInt(kb, 10)
      else if (name === 'Anonymous') {
        privateKb += Number.parseInt(kb, 10)
        ofFiles.set(part, Math.max(ofFiles.get(part) ?? 0, residentKb - Number.parseInt(kb, 10)))
      }
    }
  }
  return round((privateKb + [...ofFiles.values()].reduce((sum, kb) => sum + kb, 0)) / 1024)
}

/**
 * Time on a core in ms: of every thread of the agent's processes, exactly (schedstat), and of the programs they ran and
 * waited for (proc(5), fields 16 and 17). The times of fields 14 and 15 are counted by the clock's tick, and an agent
 * that wakes with it looks several times as busy as it is.
 */
function cpuMs(host: HostName): number {
  return hostProcesses(LAB, host, 'agent')
    .map(pid => {
      const threads = readdirSync(`/proc/${pid}/task`)
      const runNs = threads.map(thread =>
        Number(readFileSync(`/proc/${pid}/task/${thread}/schedstat`, 'utf8').split(' ')[0]),
      )
      const stat = readFileSync(`/proc/${pid}/stat`, 'latin1')
      const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
      const waitedTicks = Number(fields[13]) + Number(fields[14])
      return runNs.reduce((sum, ns) => sum + ns, 0) / 1e6 + (waitedTicks * 1000) / TICKS_PER_SECOND
    })
    .reduce((sum, ms) => sum + ms, 0)
}

async function beatUnderLoad(
  primary: HostName,
  { seconds, profile }: { seconds: number; profile: Profile },
): Promise<Beat> {
  const trial = await Trial.begin(LAB, { observe: 'nothing', writer: { intervalMs: 100 } })
  const began = { wallMs: Date.now(), epoch: (await agentStatus(LAB, primary))?.epoch ?? 0 }
  // In the normal class, whatever class this benchmark was started in.
  const hogs = cpus().map(() =>
    spawn('chrt', ['--other', '0', process.execPath, '-e', 'for(;;);'], { stdio: 'ignore' }),
  )
  const packets = watchPeerLink(LAB, primary)
  const renewals = watchRenewals(primary)
  let leaseLeast = Number.POSITIVE_INFINITY
  let grantLeast = Number.POSITIVE_INFINITY
  const end = performance.now() + seconds * 1000
  while (performance.now() < end) {
    const status = await agentStatus(LAB, primary)
    if (status !== null) {
      leaseLeast = Math.min(leaseLeast, status.lease.leftMs)
      grantLeast = Math.min(grantLeast, status.gate.leftMs)
    }
    await sleep(STATUS_EVERY_MS)
  }
  const seen = packets.end()
  const renewed = await renewals.end()
  for (const hog of hogs) hog.kill('SIGKILL')
  await untilProtected(LAB)
  await trial.end()
  const sent = seen.filter(packet => packet.outgoing).map(packet => packet.atMs)
  const shrinks = HOSTS.flatMap(host => decisionsOf(LAB, host)).filter(
    ({ wallMs, why }) => wallMs > began.wallMs && why.startsWith('committed shrink'),
  )
  const epoch = Math.max(...(await Promise.all(HOSTS.map(async host => (await agentStatus(LAB, host))?.epoch ?? 0))))
  say(`heartbeat interval ${timingOf(profile).heartbeatMs} ms`)
  return {
    seconds,
    hogs: hogs.length,
    heartbeatGapMs: summary(gaps(sent)),
    answerMs: summary(answers(seen)),
    renewalGapMs: summary(gaps(renewed)),
    leaseLeastLeftMs: Math.round(leaseLeast),
    grantLeastLeftMs: grantLeast,
    shrinks: shrinks.length,
    takeovers: epoch - began.epoch,
  }
}

const gaps = (times: readonly number[]): number[] => times.slice(1).map((time, index) => time - times[index]!)

function answers(seen: readonly { atMs: number; outgoing: boolean }[]): number[] {
  return seen.flatMap((packet, index) => {
    const next = seen[index + 1]
    return packet.outgoing && next !== undefined && !next.outgoing ? [next.atMs - packet.atMs] : []
  })
}

/** The times at which the kernel told of a new element in the set of the grant. */
function watchRenewals(host: HostName): { end: () => Promise<number[]> } {
  const times: number[] = []
  const monitor: ChildProcess = spawn(
    'nsenter',
    // By lines: a full buffer would come with the times of its last one.
    [`--net=${namespacePath(LAB, host)}`, 'stdbuf', '-oL', 'nft', 'monitor', 'new', 'elements'],
    { stdio: ['ignore', 'pipe', 'ignore'] },
  )
  monitor.stdout?.on('data', (chunk: Buffer) => {
    if (/\bopen\b/.test(chunk.toString())) times.push(performance.now())
  })
  return {
    end: async () => {
      monitor.kill('SIGKILL')
      return times
    },
  }
}

function show({
  profile,
  idle,
  beat,
}: {
  profile: Profile
  idle: { primary: HostCost; backup: HostCost }
  beat: Beat
}): void {
  const out = (line: string): void => {
    process.stdout.write(`${line}\n`)
  }
  out(`profile ${profile}; an idle pair, the agent with all its children, PostgreSQL left out`)
  for (const cost of [idle.primary, idle.backup]) {
    out(
      `  ${cost.role.padEnd(8)} resident ${cost.rssMib} MiB (RSS summed), ${cost.onceMib} MiB (pages of files once), ${cost.pssMib} MiB (PSS); ${cost.idleCpuPercent} % of a core`,
    )
    for (const one of cost.processes) out(`           ${one.rssMib} MiB RSS, ${one.pssMib} MiB PSS: ${one.command}`)
  }
  const spread = ({ median, p99, max }: Summary): string => `${median} ms, p99 ${p99} ms, max ${max} ms`
  out(`${beat.hogs} busy processes on ${cpus().length} cores for ${beat.seconds} s, under writes`)
  out(`  between heartbeats (${timingOf(profile).heartbeatMs} ms wanted)   ${spread(beat.heartbeatGapMs)}`)
  out(`  heartbeat to answer                ${spread(beat.answerMs)}`)
  out(`  between renewals of the grant      ${spread(beat.renewalGapMs)}`)
  out(`  left at the worst moment           lease ${beat.leaseLeastLeftMs} ms, grant ${beat.grantLeastLeftMs} ms`)
  out(`  ${beat.shrinks} times unprotected, ${beat.takeovers} takeovers`)
}

runProgram(main, { say })
