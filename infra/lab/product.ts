/** How the lab runs the product: its command, its configuration files, and the question for its status. */

import { existsSync, mkdirSync, writeFileSync } from 'node:fs'
import { connect } from 'node:net'
import { join } from 'node:path'
import { otherNode } from '../../shared/protocol/nodes.ts'
import {
  addressOf,
  DATABASE_PORT,
  GATEWAY,
  type HostName,
  INTERFACE,
  LAN_PREFIX,
  PEER_PORT,
  SYNC_PORT,
  VIP,
  WEB_PORT,
  WITNESS_PORT,
} from './addresses.ts'
import { nodeCommand } from './fabric.ts'
import { hostPaths } from './hosts.ts'
import { postgresBinDir } from './postgres-programs.ts'

const ROOT = join(import.meta.dirname, '../..')
const BUNDLE = join(ROOT, 'dist/understudy.mjs')
const SOURCE = join(ROOT, 'node-agent/cli/main.ts')
const FILE_SERVICE = join(import.meta.dirname, 'file-service.ts')
const WEB_SERVICE = join(import.meta.dirname, 'web-service.ts')

export const PROFILES = ['fast', 'default', 'conservative'] as const
export type Profile = (typeof PROFILES)[number]

/** Made by the product, or there before it with PostgreSQL's own defaults. */
export type DatabaseOrigin = 'made' | 'adopted'

/** What the agents of a lab's pair are configured with. */
export interface PairOptions {
  profile: Profile
  database: DatabaseOrigin
  /** Protected beside the database. A service that starts takes a core of this machine, which a measurement may mind. */
  services: readonly ('web' | 'files')[]
}

/**
 * The lab runs what is in the tree. With UNDERSTUDY_LAB_BUNDLE=1 it runs the bundled file, which is what users get and
 * starts faster; any other value of it is the path of such a file.
 */
export function understudyCommand(args: readonly string[]): string[] {
  const wish = process.env.UNDERSTUDY_LAB_BUNDLE ?? ''
  if (wish === '') return nodeCommand(SOURCE, args)
  const bundle = wish === '1' ? BUNDLE : wish
  if (!existsSync(bundle)) throw new Error(`There is no ${bundle}: make it with \`npm run build\`.`)
  // As infra/systemd/understudy.service starts it.
  const [node = '', ...rest] = nodeCommand(bundle, args)
  return [node, ...AGENT_NODE_FLAGS, ...rest]
}

const AGENT_NODE_FLAGS = [
  '--min-semi-space-size=4',
  '--max-semi-space-size=4',
  '--single-threaded-gc',
  '--no-memory-reducer',
  '--no-flush-bytecode',
]

export interface AgentPaths {
  config: string
  socket: string
  stateDir: string
  dataDir: string
  /** The tree that is kept on both hosts when the service "files" is there. */
  tree: string
  socketDir: string
  databaseUriFile: string
}

export function agentPaths(lab: string, host: HostName): AgentPaths {
  const { runDir, diskDir } = hostPaths(lab, host)
  return {
    config: join(diskDir, 'agent.json'),
    stateDir: join(diskDir, 'state'),
    dataDir: join(diskDir, 'postgres'),
    tree: join(diskDir, 'tree'),
    databaseUriFile: join(diskDir, 'web-database-uri'),
    socket: join(runDir, 'agent.sock'),
    socketDir: join(runDir, 'postgres'),
  }
}

/** The part that only the host knows: what a host starts with that is to be set up from afar. */
function hostPart(lab: string, host: HostName, mode: 'create' | 'adopt') {
  const paths = agentPaths(lab, host)
  return {
    stateDir: paths.stateDir,
    socket: paths.socket,
    pairKeyFile: join(paths.stateDir, 'pair.key'),
    hostKeyFile: join(paths.stateDir, 'host.key'),
    postgres: {
      binDir: postgresBinDir(),
      dataDir: paths.dataDir,
      socketDir: paths.socketDir,
      port: DATABASE_PORT,
      user: 'postgres',
      mode,
    },
    uplink: { interface: INTERFACE.lan, gateway: GATEWAY.v4 },
    // No systemd tells a restart from a stop here, and agents are restarted by SIGTERM and a new start.
    stop: { onAgentStop: 'leaveRunning' },
    // A lab host has little disk on purpose, or the machine's own.
    limits: { slotWalMb: 256, freeDiskMb: 32, evidenceMb: 64 },
  }
}

/** Writes the configuration of a host that waits for its pair. */
export function writeWaitingConfig(
  lab: string,
  host: HostName,
  { witnessTokenFile }: { witnessTokenFile: string },
): void {
  mkdirSync(hostPaths(lab, host).diskDir, { recursive: true })
  // As short as it can be: what is cut off on purpose is not waited for half a minute.
  const network = { confirmSeconds: 15 }
  const config = { ...hostPart(lab, host, 'create'), control: { witnessTokenFile }, network }
  writeFileSync(agentPaths(lab, host).config, `${JSON.stringify(config, null, 2)}\n`)
}

/** Writes a host's configuration file. @param witnessFingerprint of the lab's witness */
export function writeAgentConfig(
  lab: string,
  host: HostName,
  options: PairOptions & { witnessFingerprint: string },
): void {
  const other = otherNode(host)
  const paths = agentPaths(lab, host)
  const ways = (['peer', 'lan'] as const).map(link => ({
    local: addressOf(host, link).v4,
    peer: addressOf(other, link).v4,
    port: PEER_PORT,
  }))
  const config = {
    ...hostPart(lab, host, options.database === 'made' ? 'create' : 'adopt'),
    pair: lab,
    node: host,
    profile: options.profile,
    peer: { paths: ways },
    vips: [
      { address: `${VIP.v4}/${LAN_PREFIX.v4}`, interface: INTERFACE.lan },
      { address: `${VIP.v6}/${LAN_PREFIX.v6}`, interface: INTERFACE.lan },
    ],
    protectedPorts: [DATABASE_PORT, WEB_PORT],
    witness: { url: `https://${addressOf('w').v4}:${WITNESS_PORT}`, fingerprint: options.witnessFingerprint },
    services: options.services.map(name =>
      name === 'files'
        ? { name, run: nodeCommand(FILE_SERVICE, ['--tree', paths.tree]) }
        : {
            name,
            run: nodeCommand(WEB_SERVICE, ['--port', `${WEB_PORT}`, '--database-uri-file', paths.databaseUriFile]),
            health: { http: `http://127.0.0.1:${WEB_PORT}/health` },
          },
    ),
    ...(options.services.includes('files')
      ? { sync: { port: SYNC_PORT, trees: [{ name: 'data', path: paths.tree, policy: 'required', lagLimitS: 5 }] } }
      : {}),
  }
  mkdirSync(hostPaths(lab, host).diskDir, { recursive: true })
  if (options.services.includes('files')) mkdirSync(paths.tree, { recursive: true })
  writeFileSync(paths.config, `${JSON.stringify(config, null, 2)}\n`)
}

/** What of `understudy status --json` the lab looks at. */
export interface AgentStatus {
  node: HostName
  role: string
  gen: number
  epoch: number
  version: number
  serving: boolean
  primary: HostName | null
  successor: boolean
  lease: { leftMs: number }
  protection: string
  since: string
  why: string
  gate: { state: string; leftMs: number }
  replication: { lagBytes: number | null; streaming: boolean; lsn: string; timeline: number }
  witness: { url: string; reach: string; isMember: boolean; alternate: { isMember: boolean } | null } | null
  certificates: { of: string; ends: string }[]
  alarms: string[]
  agent: { pid: number; profile: string }
}

/** The agent answers from memory. */
const ANSWER_LIMIT_MS = 1_000

/**
 * A host's status, or null when its agent does not answer: off, killed or stopped. The same question `understudy status`
 * asks over the same socket, without a process for each look.
 */
export async function agentStatus(lab: string, host: HostName): Promise<AgentStatus | null> {
  const answer = (await askAgent(lab, host, 'status')) as { result?: AgentStatus } | null
  return answer?.result ?? null
}

/** Asks a host's agent something over its socket; null when it does not answer. */
export function askAgent(
  lab: string,
  host: HostName,
  verb: string,
  args: Record<string, unknown> = {},
): Promise<unknown> {
  return new Promise(resolve => {
    const socket = connect(agentPaths(lab, host).socket)
    let text = ''
    const finish = (answer: unknown): void => {
      socket.destroy()
      resolve(answer)
    }
    socket.setEncoding('utf8')
    socket.setTimeout(ANSWER_LIMIT_MS, () => finish(null))
    socket.on('error', () => finish(null))
    socket.on('close', () => finish(null))
    socket.on('connect', () => socket.write(`${JSON.stringify({ id: 1, verb, args })}\n`))
    socket.on('data', chunk => {
      text += chunk
      if (text.includes('\n')) finish(JSON.parse(text.slice(0, text.indexOf('\n'))))
    })
  })
}
