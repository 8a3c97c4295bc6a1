/** A lab whose two hosts know nothing of each other until the control plane makes a pair of them. */

import { mkdirSync } from 'node:fs'
import type { z } from 'zod'
import type { OperationView } from '../../shared/contract/api/operations.ts'
import type { pairSettings } from '../../shared/contract/api/settings.ts'
import {
  addressOf,
  DATABASE_PORT,
  HOSTS,
  type HostName,
  INTERFACE,
  LAN_PREFIX,
  VIP,
  WITNESS_PORT,
} from './addresses.ts'
import { enrolHosts, type LabControlPlane, startControlPlane } from './control-plane.ts'
import { withLabState } from './lab-state.ts'
import { createMachines } from './machine.ts'
import { finishPair, startAgent, startWitness, until } from './pair.ts'
import { agentPaths, writeWaitingConfig } from './product.ts'

export interface RemotePair {
  plane: LabControlPlane
  hosts: { [host in HostName]: string }
  pair: string
  setUp: OperationView
  /** A witness of one's own, whether the pair uses it or not. */
  witness: { kind: 'own'; url: string; fingerprint: string }
}

/** initdb, base backup, growing the pair, on a busy machine. */
const SET_UP_LIMIT_MS = 120_000

export const pairName = 'orders'

export type WantedSettings = z.input<typeof pairSettings>

/** As a portal asks for it. */
export function settingsOf(witnessFingerprint: string): WantedSettings {
  const addresses = (host: HostName): string[] => [addressOf(host, 'lan').v4, addressOf(host, 'peer').v4]
  return {
    mode: 'distributed',
    ipFamily: 'ipv4',
    vips: [{ address: `${VIP.v4}/${LAN_PREFIX.v4}`, interface: INTERFACE.lan }],
    protectedPorts: [DATABASE_PORT],
    hosts: { a: { addresses: addresses('a') }, b: { addresses: addresses('b') } },
    arbitration: {
      witness: {
        kind: 'own',
        url: `https://${addressOf('w').v4}:${WITNESS_PORT}`,
        fingerprint: witnessFingerprint,
      },
    },
  }
}

/** Machines, agents that wait, the control plane, enrolment, and the set-up through the API alone. */
export async function upThroughApi(
  lab: string,
  { say = () => {}, settings = {} }: { say?: (line: string) => void; settings?: Partial<WantedSettings> } = {},
): Promise<RemotePair> {
  await createMachines({ name: lab })
  say('a witness, two agents that wait for their pair, and the control plane start')
  const waiting = withLabState(lab, async state => {
    const running = await startWitness(state)
    for (const host of HOSTS) {
      mkdirSync(agentPaths(lab, host).stateDir, { recursive: true, mode: 0o711 })
      writeWaitingConfig(lab, host, { witnessTokenFile: running.enrolmentTokenFile })
      await startAgent(state, host)
    }
    return running
  })
  const [witness, plane] = await Promise.all([waiting, startControlPlane(lab)])
  const hosts = await enrolHosts(lab, plane)
  say('both hosts are enrolled; the API makes a pair of them')
  const body = { name: pairName, hosts, settings: { ...settingsOf(witness.fingerprint), ...settings } }
  const begun = await plane.api.setUpPair({ body })
  const formed = finishPair(lab, say).then(
    () => null,
    (error: unknown) => error,
  )
  const setUp = await untilEnded(plane, begun.body.operation.id, SET_UP_LIMIT_MS)
  if (setUp.state !== 'succeeded') throw new Error(`The set-up ${setUp.state}: ${setUp.message}`)
  const fault = await formed
  if (fault !== null) throw fault
  const { url, fingerprint } = witness
  return { plane, hosts, pair: begun.body.pair, setUp, witness: { kind: 'own', url, fingerprint } }
}

export function untilEnded({ api }: LabControlPlane, operation: string, limitMs: number): Promise<OperationView> {
  return until(limitMs, `Operation ${operation} does not end`, async () => {
    const { body } = await api.getOperation({ params: { operation }, wait: 5 })
    return ['running', 'scheduled'].includes(body.state) ? null : body
  })
}

/** Resolves to what each host says of the newest wish, once both have said yes or no. */
export function untilBothSettled(
  remote: Pick<RemotePair, 'plane' | 'hosts'>,
  limitMs: number,
): Promise<{ [host in HostName]: { status: string; message: string } }> {
  return until(limitMs, 'the hosts do not settle with the wish', async () => {
    const found: Partial<{ [host in HostName]: { status: string; message: string } }> = {}
    for (const name of HOSTS) {
      const { body } = await remote.plane.api.getHost({ params: { host: remote.hosts[name] } })
      const applied = body.conditions.find(one => one.type === 'Applied')
      if (applied === undefined) return null
      // What was refused before says nothing about the newest.
      const refused = applied.reason === 'Reverted' && applied.message.startsWith(`generation ${body.generation}:`)
      if (applied.reason !== 'Applied' && !refused) return null
      found[name] = { status: applied.status, message: applied.message }
    }
    return found as { [host in HostName]: { status: string; message: string } }
  })
}
