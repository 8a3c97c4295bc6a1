/** The control plane of a lab: its own PostgreSQL and Mosquitto, on the switch that all hosts hang on. */

import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { request } from 'node:http'
import { join } from 'node:path'
import { UnderstudyClient } from '../../control-plane/client/generated/understudy-client.ts'
import { GATEWAY, HOSTS, type HostName, labPaths, namespacePath } from './addresses.ts'
import { createGroup, groupPath, killGroup, processesIn, untilEmpty } from './control-groups.ts'
import { startDetached } from './exec.ts'
import { nodeCommand } from './fabric.ts'
import { hostPaths, runOnHost } from './hosts.ts'
import { until } from './pair.ts'
import { agentPaths, understudyCommand } from './product.ts'

const ENTRY = join(import.meta.dirname, '../../control-plane/entry/node.ts')
const RELAY = join(import.meta.dirname, 'unix-relay.ts')
const PORT = 7480
const BROKER_PORT = 7483
/** initdb, migrations and a broker: some seconds; on a busy machine many. */
const START_LIMIT_MS = 60_000
const ENROL_LIMIT_MS = 30_000

export interface LabControlPlane {
  /** Inside the lab's networks. */
  url: string
  adminToken: string
  /** For programs. */
  api: UnderstudyClient
}

const groupName = 'control-plane'
export const controlPlaneDir = (lab: string): string => join(labPaths(lab).diskDir, 'control-plane')
const logFile = (lab: string): string => join(labPaths(lab).runDir, 'log', 'control-plane.log')
const relaySocket = (lab: string): string => join(labPaths(lab).runDir, 'control-plane.sock')
/** Passes on to its broker, for programs outside the lab's networks. */
export const brokerSocket = (lab: string): string => join(labPaths(lab).runDir, 'broker.sock')
const tokenFile = (lab: string): string => join(labPaths(lab).runDir, 'control-plane-token')
export const controlPlaneUrl = `http://${GATEWAY.v4}:${PORT}`

/** Where the switch is: reached by every host as long as its own link is up. */
function onTheSwitch(lab: string, group: string, command: readonly string[]): string[] {
  const join_ = join(import.meta.dirname, 'join-group')
  return [`--net=${namespacePath(lab, 'net')}`, join_, createGroup(lab, group), ...command]
}

/** To the end of its line: what is being written may be read half. */
const firstToken = /token of the first administrator[^:]*: (\S+)\n/

/** Starts it, the first time with an empty database; resolves when it answers. */
export async function startControlPlane(lab: string): Promise<LabControlPlane> {
  mkdirSync(controlPlaneDir(lab), { recursive: true })
  const already = existsSync(logFile(lab)) ? readFileSync(logFile(lab), 'utf8').length : 0
  const env = {
    ...process.env,
    LISTEN: `${GATEWAY.v4}:${PORT}`,
    DATA_DIR: controlPlaneDir(lab),
    NODE_OPTIONS: '--disable-warning=ExperimentalWarning',
  }
  await startDetached('nsenter', onTheSwitch(lab, groupName, nodeCommand(ENTRY, [])), {
    logFile: logFile(lab),
    cwd: '/',
    env,
  })
  for (const [socket, port] of [
    [relaySocket(lab), PORT],
    [brokerSocket(lab), BROKER_PORT],
  ] as const) {
    if (existsSync(socket)) continue
    const relay = nodeCommand(RELAY, [socket, GATEWAY.v4, `${port}`])
    await startDetached('nsenter', onTheSwitch(lab, 'relay', relay), { logFile: logFile(lab), cwd: '/' })
  }
  const saidSince = (): string => readFileSync(logFile(lab), 'utf8').slice(already)
  const said = await until(START_LIMIT_MS, 'The control plane did not start', async () => {
    const text = saidSince()
    const isFirst = !existsSync(tokenFile(lab))
    const isUp = /the API to browse/.test(text) && (!isFirst || firstToken.test(text))
    return isUp && existsSync(relaySocket(lab)) ? text : null
  }).catch(error => {
    throw new Error(`${(error as Error).message} It said:\n${saidSince()}`)
  })
  const fresh = firstToken.exec(said)?.[1]
  if (fresh !== undefined) writeFileSync(tokenFile(lab), fresh, { mode: 0o600 })
  const adminToken = readFileSync(tokenFile(lab), 'utf8')
  const api = new UnderstudyClient({ url: controlPlaneUrl, token: adminToken, fetch: fetchOver(relaySocket(lab)) })
  return { url: controlPlaneUrl, adminToken, api }
}

/** As a machine that burns down: control plane, PostgreSQL and broker at once. */
export async function killControlPlane(lab: string): Promise<void> {
  killGroup(groupPath(lab, groupName))
  await untilEmpty(groupPath(lab, groupName))
}

/** Its processes by the name of their program, such as "mosquitto". */
export function controlPlaneProcesses(lab: string, program: string): number[] {
  return processesIn(groupPath(lab, groupName)).filter(pid => {
    try {
      return readFileSync(`/proc/${pid}/comm`, 'utf8').trim() === program
    } catch {
      return false
    }
  })
}

/**
 * Makes a host known to it, as an operator does: a token of the API, carried to the host. Resolves to the host's id.
 * @param replaces the id of the host whose place it takes
 */
export async function enrolHost(
  lab: string,
  host: HostName,
  { api }: LabControlPlane,
  { replaces }: { replaces?: string } = {},
): Promise<string> {
  const { body } = await api.createEnrolmentToken({ body: { name: `host-${host}`, replaces } })
  const file = join(hostPaths(lab, host).diskDir, 'enrolment.token')
  writeFileSync(file, body.token, { mode: 0o600 })
  const said = await runOnHost(
    lab,
    host,
    understudyCommand(['enrol', '--config', agentPaths(lab, host).config, '--token-file', file]),
  )
  rmSync(file)
  const id = /\(([0-9a-z]{26})\)/.exec(said)?.[1]
  if (id === undefined) throw new Error(`Host ${host} did not enrol: ${said}`)
  return id
}

export async function enrolHosts(lab: string, plane: LabControlPlane): Promise<{ [host in HostName]: string }> {
  const [a = '', b = ''] = await Promise.all(HOSTS.map(host => enrolHost(lab, host, plane)))
  await untilConnected(plane, [a, b])
  return { a, b }
}

export async function untilConnected({ api }: LabControlPlane, hosts: readonly string[]): Promise<void> {
  for (const host of hosts)
    await until(ENROL_LIMIT_MS, `Host ${host} is not connected to the control plane`, async () => {
      const { body } = await api.getHost({ params: { host } })
      return body.connected === 'yes' ? body : null
    })
}

/** `fetch` for a server behind a Unix socket, as far as the client of the API needs it. */
function fetchOver(socketPath: string): typeof fetch {
  return async (input, init = {}) => {
    const asked = new Request(input, init)
    const url = new URL(asked.url)
    const body = asked.body === null ? null : Buffer.from(await asked.arrayBuffer())
    return new Promise((resolve, reject) => {
      const headers = Object.fromEntries(asked.headers)
      const path = url.pathname + url.search
      const sent = request({ socketPath, path, method: asked.method, headers, agent: false }, answer => {
        const chunks: Buffer[] = []
        answer.on('data', (chunk: Buffer) => chunks.push(chunk))
        answer.on('error', reject)
        answer.on('end', () => {
          const status = answer.statusCode ?? 500
          const given = Object.entries(answer.headers).flatMap(([name, value]) =>
            value === undefined ? [] : [[name, String(value)] as [string, string]],
          )
          resolve(new Response([204, 304].includes(status) ? null : Buffer.concat(chunks), { status, headers: given }))
        })
      })
      sent.on('error', reject)
      sent.end(body ?? undefined)
    })
  }
}
