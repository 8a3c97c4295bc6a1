import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { mkdirSync, readdirSync, readFileSync, readlinkSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { setPriority } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { workerNice } from '../../node-agent/workers/definition.ts'
import { FilesPair } from '../fixtures/files-pair.ts'
import { undoneAtEnd } from './interruption.ts'

/** Something that keeps `to` like `from`, as it changes. */
export interface Contender {
  name: string
  from: string
  to: string
  /** Of all its processes with a tree of no files, MiB; null where nobody asks. */
  emptyRssMb: number | null
  /** What rsync is told to pass over when it compares the trees. */
  passesOver: readonly string[]
  /** All processes of both sides. */
  pids: () => number[]
  stop: () => Promise<void>
}

export type Start = (folder: string, seed: (from: string) => void) => Promise<Contender>

/** The two workers as the agents run them, by their priority; the core has no part in this. */
export async function startUnderstudy(_folder: string, seed: (from: string) => void): Promise<Contender> {
  const making = FilesPair.make({}, { wire: 'direct' })
  const undone = undoneAtEnd(async () => (await making).end())
  const pair = await making
  const pids = (): number[] => [pair.host('a').pid, pair.host('b').pid]
  const start = async (): Promise<void> => {
    await pair.startBoth()
    for (const pid of pids())
      for (const thread of readdirSync(`/proc/${pid}/task`)) setPriority(Number(thread), workerNice)
  }
  await start()
  await pair.barrier('a')
  await sleep(settleMs)
  const emptyRssMb = usage(pids()).rssMb
  await Promise.all([pair.host('a').stop(), pair.host('b').stop()])
  seed(pair.path('a'))
  await start()
  return {
    name: 'understudy',
    from: pair.path('a'),
    to: pair.path('b'),
    emptyRssMb,
    passesOver: [],
    pids,
    stop: async () => {
      await pair.end()
      undone()
    },
  }
}
const settleMs = 2000

async function freePort(): Promise<number> {
  const server = createServer()
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as { port: number }
  await new Promise(resolve => server.close(resolve))
  return port
}

function makeTrees(folder: string, seed: (from: string) => void): { from: string; to: string } {
  const [from, to] = [join(folder, 'from'), join(folder, 'to')]
  for (const path of [from, to]) mkdirSync(path, { recursive: true })
  seed(from)
  return { from, to }
}

function run(command: string, args: string[], env: NodeJS.ProcessEnv = {}): ChildProcess {
  const child = spawn(command, args, { stdio: 'ignore', env: { ...process.env, ...env }, detached: true })
  const ended = undoneAtEnd(() => end([child]))
  child.once('exit', ended)
  return child
}

async function end(children: readonly ChildProcess[]): Promise<void> {
  for (const child of children) {
    if (child.pid === undefined || child.exitCode !== null || child.signalCode !== null) continue
    const gone = new Promise(resolve => child.once('exit', resolve))
    // With the group go the rsync processes and the like that it started.
    try {
      process.kill(-child.pid, 'SIGKILL')
    } catch {
      // It has ended by itself in this moment.
    }
    await gone
  }
}

/** Processes below these, since lsyncd starts an rsync for each batch and syncthing watches itself. */
function descendants(children: readonly ChildProcess[]): number[] {
  const all = children.map(child => child.pid!).filter(Boolean)
  // The list grows while it is walked: children of children come after them.
  for (const pid of all) {
    try {
      // Any thread may have started them (in Go each does).
      for (const thread of readdirSync(`/proc/${pid}/task`)) {
        const below = readFileSync(`/proc/${pid}/task/${thread}/children`, 'utf8').trim().split(' ')
        all.push(...below.filter(Boolean).map(Number))
      }
    } catch {
      // It has ended.
    }
  }
  return all
}

/**
 * lsyncd 2.x as Debian has it, without delay, to an rsync daemon: nothing is spent on ssh. `archive` alone: attributes and
 * hard links, of which these trees have none, would cost each of its rsync processes more.
 */
export async function startLsyncd(folder: string, seed: (from: string) => void): Promise<Contender> {
  const { from, to } = makeTrees(folder, seed)
  const port = await freePort()
  const daemonConfig = join(folder, 'rsyncd.conf')
  writeFileSync(
    daemonConfig,
    `uid = root\ngid = root\nuse chroot = no\nport = ${port}\naddress = 127.0.0.1\npid file = ${folder}/rsyncd.pid\n[to]\npath = ${to}\nread only = no\n`,
  )
  const config = join(folder, 'lsyncd.conf')
  writeFileSync(
    config,
    `settings { nodaemon = true, logfile = "${folder}/lsyncd.log", insist = true }
sync { default.rsync, source = "${from}", target = "rsync://127.0.0.1:${port}/to", delay = 0,
  rsync = { archive = true, _extra = { "--numeric-ids" } } }
`,
  )
  const daemon = run('rsync', ['--daemon', '--no-detach', `--config=${daemonConfig}`])
  await sleep(300)
  const lsyncd = run('lsyncd', ['-nodaemon', config])
  const children = [lsyncd, daemon]
  return {
    name: 'lsyncd',
    from,
    to,
    emptyRssMb: null,
    passesOver: [],
    pids: () => descendants(children),
    stop: () => end(children),
  }
}

/** It keeps no times of directories, and has a folder of its own in each tree. */
const passesOver = ['--omit-dir-times', '--exclude=/.stfolder']

/** Two syncthing instances that know each other only, watching with the shortest delay it takes. */
export async function startSyncthing(folder: string, seed: (from: string) => void): Promise<Contender> {
  const { from, to } = makeTrees(folder, seed)
  const homes = [join(folder, 'home-from'), join(folder, 'home-to')] as const
  const ids = homes.map(home => {
    execFileSync('syncthing', ['generate', '--home', home, '--no-default-folder', '--skip-port-probing'], {
      stdio: 'ignore',
    })
    return execFileSync('syncthing', ['--device-id', '--home', home], { encoding: 'utf8' }).trim()
  })
  const ports = [await freePort(), await freePort()]
  for (const [index, home] of homes.entries()) {
    const path = index === 0 ? from : to
    mkdirSync(join(path, '.stfolder'), { recursive: true })
    writeFileSync(join(home, 'config.xml'), syncthingConfig({ index, path, ids, ports }))
  }
  const children = homes.map((home, index) =>
    run(
      'syncthing',
      [
        'serve',
        '--home',
        home,
        '--no-browser',
        '--no-restart',
        '--no-upgrade',
        `--gui-address=unix://${folder}/gui-${index}`,
      ],
      {
        HOME: home,
      },
    ),
  )
  return {
    name: 'syncthing',
    from,
    to,
    emptyRssMb: null,
    passesOver,
    pids: () => descendants(children),
    stop: () => end(children),
  }
}

function syncthingConfig(part: {
  index: number
  path: string
  ids: readonly string[]
  ports: readonly number[]
}): string {
  const { index, path, ids, ports } = part
  const device = (at: number): string =>
    `<device id="${ids[at]}" name="d${at}" compression="never"><address>tcp://127.0.0.1:${ports[at]}</address></device>`
  return `<configuration version="35">
<folder id="t" path="${path}" type="${index === 0 ? 'sendonly' : 'receiveonly'}" rescanIntervalS="3600" fsWatcherEnabled="true" fsWatcherDelayS="1" ignorePerms="false">
<device id="${ids[0]}"/><device id="${ids[1]}"/><minDiskFree unit="">0</minDiskFree></folder>
${device(0)}${device(1)}
<options><listenAddress>tcp://127.0.0.1:${ports[index]}</listenAddress><globalAnnounceEnabled>false</globalAnnounceEnabled>
<localAnnounceEnabled>false</localAnnounceEnabled><relaysEnabled>false</relaysEnabled><natEnabled>false</natEnabled>
<urAccepted>-1</urAccepted><autoUpgradeIntervalH>0</autoUpgradeIntervalH><crashReportingEnabled>false</crashReportingEnabled>
<reconnectionIntervalS>1</reconnectionIntervalS><startBrowser>false</startBrowser></options></configuration>`
}

const ticksPerS = 100
/** CPU seconds used so far and resident MiB, of all processes. */
export function usage(pids: readonly number[]): { cpuS: number; rssMb: number } {
  let ticks = 0
  let rss = 0
  for (const pid of pids) {
    try {
      const stat = readFileSync(`/proc/${pid}/stat`, 'utf8')
      const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
      ticks += Number(fields[11]) + Number(fields[12])
      rss += Number(fields[21]) * 4096
      readlinkSync(`/proc/${pid}/exe`)
    } catch {
      // It has ended.
    }
  }
  return { cpuS: ticks / ticksPerS, rssMb: rss / 2 ** 20 }
}
