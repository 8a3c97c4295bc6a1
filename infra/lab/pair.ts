/** The product on the lab's machines: the witness, the two agents, and how they become a pair. */

import { randomBytes } from 'node:crypto'
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { stripTypeScriptTypes } from 'node:module'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { otherNode } from '../../shared/protocol/nodes.ts'
import { addressOf, DATABASE_PORT, HOSTS, type HostName, labPaths, VIP, WITNESS_PORT } from './addresses.ts'
import { makeForeignCluster } from './adopted-cluster.ts'
import { type Client, openLocalClient } from './database-client.ts'
import { hostPaths, runOnHost, startOnHost } from './hosts.ts'
import { type LabState, withLabState } from './lab-state.ts'
import { queryLocally } from './local-query.ts'
import { wallClockFile } from './machine.ts'
import {
  type AgentStatus,
  agentPaths,
  agentStatus,
  type PairOptions,
  understudyCommand,
  writeAgentConfig,
} from './product.ts'

const WALL_CLOCK = join(import.meta.dirname, 'wall-clock.ts')
/** A witness makes its certificate at its first start, an agent starts its database. */
const START_LIMIT_MS = 60_000
/** initdb, base backup of an empty cluster, growing the pair: seconds; on a busy machine many. */
const FORM_LIMIT_MS = 90_000
/** A takeover takes a second; one that takes this long did not happen. */
const TAKEOVER_LIMIT_MS = 20_000
const LOOK_EVERY_MS = 50
const DATABASE = { name: 'app', user: 'app' }

export function dataDirOf(lab: string, host: HostName): string {
  return agentPaths(lab, host).dataDir
}

const formedFile = (lab: string): string => join(labPaths(lab).runDir, 'formed')
const uriFile = (lab: string): string => join(labPaths(lab).runDir, 'database-uri')

/** From here on a host that is switched on starts its agent, as its init system would. */
export function isPairFormed(lab: string): boolean {
  return existsSync(formedFile(lab))
}

/** What a client in the client's namespace connects to. */
export function databaseUri(lab: string): string | null {
  return existsSync(uriFile(lab)) ? readFileSync(uriFile(lab), 'utf8').trim() : null
}

/** The same database at another address. */
export function databaseUriAt(lab: string, address: string): string {
  const uri = databaseUri(lab)
  if (uri === null) throw new Error(`The pair of lab ${lab} is not formed yet.`)
  return uri.replace(VIP.v4, address.includes(':') ? `[${address}]` : address)
}

export async function startAgent(state: LabState, host: HostName): Promise<void> {
  const env = {
    PATH: process.env.PATH,
    LANG: 'C.UTF-8',
    NODE_OPTIONS: `--disable-warning=ExperimentalWarning --import=${wallClockProgram(state.name)}`,
    UNDERSTUDY_LAB_WALL_CLOCK: wallClockFile(state.name, host),
  }
  const command = understudyCommand(['agent', '--config', agentPaths(state.name, host).config])
  state.agentPid[host] = await startOnHost(state.name, host, command, { log: `${host}-agent.log`, env })
}

/** As plain JavaScript: TypeScript would bring Node's compiler into the agent, 20 MB that no agent has elsewhere. */
function wallClockProgram(lab: string): string {
  const file = join(labPaths(lab).runDir, 'wall-clock.mjs')
  if (!existsSync(file)) writeFileSync(file, stripTypeScriptTypes(readFileSync(WALL_CLOCK, 'utf8')))
  return file
}

export interface RunningWitness {
  url: string
  pid: number
  fingerprint: string
  enrolmentTokenFile: string
}

export async function startWitness(state: LabState): Promise<RunningWitness> {
  const running = await runWitness(state.name, { name: 'witness', port: WITNESS_PORT })
  state.witnessPid = running.pid
  return running
}

/** Another one beside it, for a pair that changes its witness. Whoever starts it ends it, or the lab's end does. */
export const startSecondWitness = (lab: string): Promise<RunningWitness> =>
  runWitness(lab, { name: 'witness-2', port: WITNESS_PORT + 1 })

async function runWitness(lab: string, { name, port }: { name: string; port: number }): Promise<RunningWitness> {
  const { diskDir, logDir } = hostPaths(lab, 'w')
  const logFile = join(logDir, `w-${name}.log`)
  const already = existsSync(logFile) ? readFileSync(logFile, 'utf8').length : 0
  const listen = `${addressOf('w').v4}:${port}`
  const command = understudyCommand(['witness', '--listen', listen, '--data-dir', join(diskDir, name)])
  const pid = await startOnHost(lab, 'w', command, { log: `w-${name}.log` })
  return until(START_LIMIT_MS, `The ${name} did not start`, async () => {
    const said = readFileSync(logFile, 'utf8').slice(already)
    const fingerprint = /fingerprint[^:]*: ([0-9a-f]{64})/.exec(said)?.[1]
    // To the end of its line: what is being written may be read half.
    const enrolmentTokenFile = /enrolment token[^:]*: (\S+)\n/.exec(said)?.[1]
    return fingerprint && enrolmentTokenFile ? { url: `https://${listen}`, pid, fingerprint, enrolmentTokenFile } : null
  })
}

/** Makes the pair: witness, host a, its copy on host b; resolves when it is protected and the database can be used. */
export async function formPair(lab: string, options: PairOptions & { say: (line: string) => void }): Promise<void> {
  const { say, ...wanted } = options
  await withLabState(lab, async state => {
    say('the witness starts')
    const witness = await startWitness(state)
    for (const host of HOSTS) writeAgentConfig(lab, host, { ...wanted, witnessFingerprint: witness.fingerprint })
    if (wanted.database === 'adopted') await makeForeignCluster(dataDirOf(lab, 'a'))
    const token = join(hostPaths(lab, 'b').diskDir, 'join.token')
    const config = (host: HostName): string[] => ['--config', agentPaths(lab, host).config]
    say('host a begins the pair')
    const enrolment = ['--enrolment-token-file', witness.enrolmentTokenFile]
    await runOnHost(lab, 'a', understudyCommand(['pair', 'init', ...config('a'), ...enrolment, '--token-file', token]))
    await startAgent(state, 'a')
    say('host b joins it')
    await runOnHost(lab, 'b', understudyCommand(['pair', 'join', ...config('b'), '--token-file', token]))
    rmSync(token)
    await startAgent(state, 'b')
  })
  say('host a begins to serve')
  await finishPair(lab, say)
}

/** Once the hosts are a pair, however they became one: its database for clients, and protection. */
export async function finishPair(lab: string, say: (line: string) => void): Promise<void> {
  writeFileSync(formedFile(lab), '')
  const primary = await until(FORM_LIMIT_MS, 'No host serves', () => servingHost(lab))
  await createDatabase(lab, primary)
  say('host b copies the database')
  await untilProtected(lab)
}

async function createDatabase(lab: string, primary: HostName): Promise<void> {
  const password = randomBytes(18).toString('base64url')
  const at = (address: string): string =>
    `postgres://${DATABASE.user}:${password}@${address}:${DATABASE_PORT}/${DATABASE.name}`
  for (const host of HOSTS) {
    mkdirSync(hostPaths(lab, host).diskDir, { recursive: true })
    writeFileSync(agentPaths(lab, host).databaseUriFile, `${at('127.0.0.1')}\n`, { mode: 0o600 })
  }
  const ask = (sql: string): Promise<string> => queryHost(lab, primary, { database: 'postgres', sql })
  await ask(`create role ${DATABASE.user} login password '${password}'`)
  await ask(`create database ${DATABASE.name} owner ${DATABASE.user}`)
  writeFileSync(uriFile(lab), `${at(VIP.v4)}\n`, { mode: 0o600 })
}

/** Asks one host's own database, past VIP and gate. */
export function queryHost(lab: string, host: HostName, query: { sql: string; database?: string }): Promise<string> {
  const { sql, database = DATABASE.name } = query
  return queryLocally({ socketDir: agentPaths(lab, host).socketDir, user: 'postgres', database, sql })
}

/** One connection to it, for what has to be seen within milliseconds: a busy machine is slow to start a program for each look. */
export function openHost(lab: string, host: HostName): Client {
  const path = `${agentPaths(lab, host).socketDir}/.s.PGSQL.${DATABASE_PORT}`
  return openLocalClient({ path, user: 'postgres', database: DATABASE.name })
}

export async function statuses(lab: string): Promise<{ [host in HostName]: AgentStatus | null }> {
  const [a, b] = await Promise.all([agentStatus(lab, 'a'), agentStatus(lab, 'b')])
  return { a, b }
}

/** The host that says it serves, or null. */
export async function servingHost(lab: string): Promise<HostName | null> {
  const seen = await statuses(lab)
  return HOSTS.find(host => seen[host]?.serving === true) ?? null
}

/** Resolves once this host says that it serves. */
export async function untilServing(lab: string, host: HostName, limitMs = TAKEOVER_LIMIT_MS): Promise<void> {
  await until(limitMs, `Host ${host} does not serve`, async () => ((await servingHost(lab)) === host ? true : null))
}

/** Has the primary hand over to the other host, as a person would. Resolves when that one serves. */
export async function switchOver(lab: string, from: HostName): Promise<void> {
  await runOnHost(lab, from, understudyCommand(['switchover', '--socket', agentPaths(lab, from).socket]))
  await untilServing(lab, otherNode(from))
}

/** Resolves to the primary once a host serves, the other follows it, and a takeover would succeed. */
export function untilProtected(lab: string, limitMs = FORM_LIMIT_MS): Promise<HostName> {
  return until(limitMs, 'The pair is not protected', async () => {
    const seen = await statuses(lab)
    const primary = HOSTS.find(host => seen[host]?.serving && seen[host]?.protection === 'protected')
    const other = primary === 'a' ? seen.b : seen.a
    return primary !== undefined && other?.role === 'backup' ? primary : null
  })
}

/** Looks until `look` finds something. @throws `failure` with what the agents say of themselves */
export async function until<T>(limitMs: number, failure: string, look: () => Promise<T | null>): Promise<T> {
  const deadline = performance.now() + limitMs
  for (;;) {
    const found = await look()
    if (found !== null) return found
    if (performance.now() > deadline) throw new Error(`${failure} (waited ${limitMs / 1000} s).`)
    await sleep(LOOK_EVERY_MS)
  }
}

/** The last lines of each program's log: why something did not come about. */
export function lastWords(lab: string, lines = 8): string {
  return ['w-witness', 'a-agent', 'b-agent']
    .map(name => {
      const file = join(labPaths(lab).runDir, 'log', `${name}.log`)
      const text = existsSync(file)
        ? readFileSync(file, 'utf8').trimEnd().split('\n').slice(-lines).join('\n  ')
        : '(none)'
      return `${name}:\n  ${text}`
    })
    .join('\n')
}
