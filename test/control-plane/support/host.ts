import assert from 'node:assert/strict'
import { join } from 'node:path'
import postgres from 'postgres'
import { Cloud } from '../../../node-agent/control/cloud.ts'
import { enrol, type Identity } from '../../../node-agent/control/identity.ts'
import { acceptTrust, keyRing } from '../../../node-agent/control/trust.ts'
import { createEnrolmentToken } from '../../../shared/contract/api/hosts.ts'
import { desiredDocument } from '../../../shared/contract/api/settings.ts'
import { type Ack, type Command, command } from '../../../shared/contract/documents.ts'
import { heartbeatMac } from '../../../shared/contract/heartbeat-mac.ts'
import type { Heartbeat, HostReport } from '../../../shared/contract/report.ts'
import { documentSigner, verifyDocument } from '../../../shared/contract/signing.ts'
import { temporaryFolder } from './folder.ts'
import type { ApiClient } from './route-client.ts'
import type { Runtime } from './runtime.ts'

/** A host for tests of the control plane: the agent's own enrolment, signatures and pull, without the machine. */
export interface TestHost {
  identity: Identity
  cloud: Cloud
  report: (part?: Partial<HostReport>) => HostReport
  /** As it goes over the broker: signed. */
  said: (part?: Partial<HostReport>) => Promise<string>
  heartbeat: (part?: Partial<Heartbeat>) => Promise<string>
  send: (part?: Partial<HostReport>) => Promise<HostReport>
  /** Waits for a command, verified as an agent does it. */
  nextCommand: (limitMs?: number) => Promise<Command>
  ack: (to: Command, part: Partial<Ack> & Pick<Ack, 'phase'>) => Promise<void>
}

export const facts = {
  architecture: 'x86_64',
  bootMode: 'uefi' as const,
  postgresVersion: '15.14',
  productVersion: '0.1.0',
  product: 'Box 1',
  memoryMb: 16_000,
  dataSizeMb: 100_000,
  timeSource: 'synchronised' as const,
}

export async function enrolledHost(
  client: ApiClient,
  part: { name: string; address: string; replaces?: string },
): Promise<TestHost> {
  const { name, replaces } = part
  const { body } = await client.call(createEnrolmentToken, {
    body: { name, ...(replaces !== undefined && { replaces }) },
  })
  const path = join(temporaryFolder(), 'identity.json')
  const identity = await enrol({
    path,
    ticketText: body.token,
    agentVersion: '0.1.0',
    facts: { ...facts, hostName: name, addresses: [{ interface: 'eth0', address: `${part.address}/24` }] },
  })
  return hostOf(identity)
}

export function hostOf(identity: Identity): TestHost {
  const cloud = new Cloud(identity)
  const seen = new Set<string>()
  let seq = 0
  const report = (changed: Partial<HostReport> = {}): HostReport => ({
    v: 1,
    boot: 1,
    seq: ++seq,
    observedGeneration: 0,
    applied: { status: 'True', generation: 0, why: '' },
    pair: null,
    agent: { version: '0.1.0', startedAt: new Date().toISOString() },
    sentAt: new Date().toISOString(),
    freshAt: new Date().toISOString(),
    certificateEndsAt: null,
    ...changed,
  })
  return {
    identity,
    cloud,
    report,
    said: async changed => {
      const signer = await documentSigner(identity.host, identity.key)
      return signer.sign('report', { v: 2, at: Date.now(), report: report(changed) })
    },
    heartbeat: async changed => {
      if (cloud.heartbeatKey === null) await cloud.pull()
      const { mac, ...heartbeat }: Heartbeat = {
        v: 2,
        ...{ boot: 1, seq: ++seq, role: 'primary', epoch: 1, observedGeneration: 0, at: Date.now(), mac: '' },
        ...changed,
      }
      const made = heartbeatMac(cloud.heartbeatKey ?? '', { host: identity.host, heartbeat })
      return JSON.stringify({ ...heartbeat, mac: mac === '' ? made : mac })
    },
    send: async changed => {
      const sent = report(changed)
      const answer = await cloud.report(sent)
      if (!answer.ok) throw new Error(answer.why)
      return sent
    },
    nextCommand: async (limitMs = 30_000) => {
      const until = Date.now() + limitMs
      while (Date.now() < until) {
        const pulled = await cloud.pull()
        if (!pulled.ok) throw new Error(pulled.why)
        for (const text of pulled.value?.commands ?? []) {
          const trusted = await acceptTrust(pulled.value!.trust, {
            rootFingerprint: identity.rootFingerprint,
            heldVersion: 0,
          })
          if (!trusted.ok) throw new Error(trusted.why)
          const verified = await verifyDocument(text, 'command', keyRing(trusted.document, 'command'))
          if (!verified.ok) throw new Error(verified.why)
          const found = command.parse(verified.payload)
          if (seen.has(found.jti)) continue
          seen.add(found.jti)
          return found
        }
        await new Promise(resolve => setTimeout(resolve, 50))
      }
      throw new Error(`no command came within ${limitMs} ms`)
    },
    ack: async (to, changed) => {
      const signer = await documentSigner(identity.host, identity.key)
      const ack: Ack = {
        v: 1,
        host: identity.host,
        operation: to.operation,
        jti: to.jti,
        message: '',
        percent: null,
        result: null,
        at: new Date().toISOString(),
        ...changed,
      }
      const answer = await cloud.ack(await signer.sign('ack', ack))
      if (!answer.ok) throw new Error(answer.why)
    },
  }
}

/** What a healthy host of a protected pair tells. */
export function pairReport(part: {
  role: 'primary' | 'backup'
  primary: 'a' | 'b'
  epoch?: number
}): NonNullable<HostReport['pair']> {
  const serving = part.role === 'primary'
  return {
    role: part.role,
    gen: 1,
    epoch: part.epoch ?? 1,
    version: 5,
    serving,
    primary: part.primary,
    successor: true,
    protection: serving ? 'protected' : 'not serving',
    since: new Date().toISOString(),
    why: 'the other has every acknowledged write',
    sealed: true,
    maintenance: false,
    peer: { heardAgoMs: 5, admitted: true, why: '' },
    witness: { reach: 'yes', voteP99Ms: 4, why: '' },
    replication: {
      process: serving ? 'primary' : 'standby',
      timeline: 1,
      lsn: '0/3000000',
      streaming: true,
      lagBytes: serving ? 0 : null,
      operation: null,
      lastError: '',
    },
    vips: [{ address: '10.9.0.100/24', interface: 'eth0', present: serving, conflict: null }],
    alarms: [],
    check: {
      takeover: true,
      switchover: true,
      blocking: [],
      warnings: [],
      predicted: { powerCutOutageMs: 1064, databaseDeathOutageMs: 160, switchoverOutageMs: 100, loss: 'none' },
    },
  }
}

/** As if its last word were a minute old. */
export async function fallenSilent({ databaseUrl }: Runtime, host: string): Promise<void> {
  const sql = postgres(databaseUrl, { max: 1 })
  try {
    await sql`select set_config('app.organisation', '*', false)`
    await sql`update host_reported set received_at = now() - interval '1 minute' where host = ${host}`
    await sql`delete from host_seen where host = ${host}`
  } finally {
    await sql.end({ timeout: 1 })
  }
}

/** Of the pair, as a host reads it. */
export async function wishOf({ cloud, identity }: TestHost) {
  const pulled = await cloud.pull()
  assert.ok(pulled.ok && pulled.value !== null, 'there is a new document')
  const trusted = await acceptTrust(pulled.value.trust, { rootFingerprint: identity.rootFingerprint, heldVersion: 0 })
  assert.ok(trusted.ok)
  const verified = await verifyDocument(pulled.value.desired!, 'desired', keyRing(trusted.document, 'desired'))
  assert.ok(verified.ok)
  return desiredDocument.parse(verified.payload).pair
}
