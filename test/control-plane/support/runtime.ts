import { chmodSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { MqttClient } from 'mqtt'
import type { AuthoritySecrets } from '../../../control-plane/auth/x509.ts'
import { type BrokerAccess, connectBroker } from '../../../control-plane/broker/mqtt-client.ts'
import { type Deps, defaultLimits, type IdentityProvider, type Limits } from '../../../control-plane/deps.ts'
import { startLocalMosquitto } from '../../../control-plane/entry/local/mosquitto.ts'
import { localAuthority } from '../../../control-plane/entry/local/secrets.ts'
import { startControlPlane } from '../../../control-plane/entry/node-server.ts'
import { sweep } from '../../../control-plane/services/sweep.ts'
import { createOrganisation } from '../../../shared/contract/api/organisations.ts'
import { openBroker } from './open-broker.ts'
import { ApiClient } from './route-client.ts'

/** A control plane in one of its runtimes, over a real PostgreSQL. */
export interface Runtime {
  url: string
  instanceToken: string
  adminUrl: string
  /** Of the role that the control plane connects as. */
  databaseUrl: string
  /** Of a broker that it publishes to, and that lets everybody listen. '' where a test wanted none of that. */
  mqttUrl: string
  /** What time brings, now and not only in its turn. */
  sweep: () => Promise<void>
  close: () => Promise<void>
}

/** Tests ask more in a second than any person. */
const testLimits: Limits = {
  ...defaultLimits,
  perAddress: { perSecond: 10_000, burst: 10_000 },
  perToken: { perSecond: 10_000, burst: 10_000 },
  perHost: { perSecond: 10_000, burst: 10_000 },
}

/** With what only the Node entry has: the broker as its child. */
export interface NodeRuntime extends Runtime {
  /** The clock among them, which a test may set. */
  deps: Deps
  brokerUrl: string | null
  brokerAccess: BrokerAccess | null
  /** A client with a certificate of the broker's own authority, under whatever name; the control plane's may do all. */
  brokerClient: ((clientId: string) => Promise<MqttClient>) | null
  restartBroker: (() => Promise<void>) | null
}

export async function nodeRuntime(
  part: { broker?: null | 'none' | 'open'; identityProviders?: IdentityProvider[]; limits?: Limits } = {},
): Promise<NodeRuntime> {
  const { broker = 'none', identityProviders = [], limits = testLimits } = part
  const folder = mkdtempSync(join(tmpdir(), 'understudy-cp-'))
  chmodSync(folder, 0o711)
  const faults: string[] = []
  const authority = await localAuthority(join(folder, 'keys'))
  const open = broker === 'open' ? await openBroker(join(folder, 'open-broker')) : null
  const own = broker === null ? await ownBroker(join(folder, 'mosquitto'), authority) : null
  const running = await startControlPlane({
    dataDir: folder,
    listen: { address: '127.0.0.1', port: 0 },
    databaseUrl: null,
    broker: own?.access ?? (open === null ? 'none' : { url: open.url, tls: null }),
    publicUrl: null,
    identityProviders,
    limits,
    log: ({ level, message }) => {
      if (level === 'error') faults.push(message)
    },
  })
  return {
    url: running.url,
    instanceToken: running.tokens!.instance,
    databaseUrl: running.databaseUrl,
    adminUrl: running.adminUrl!,
    mqttUrl: open?.url ?? '',
    deps: running.deps,
    sweep: async () => void (await sweep(running.deps)),
    brokerUrl: own?.access.url ?? null,
    brokerAccess: own?.access ?? null,
    brokerClient: own?.client ?? null,
    restartBroker: own?.restart ?? null,
    close: async () => {
      await running.close()
      await own?.close()
      await open?.close()
      rmSync(folder, { recursive: true, force: true })
      if (faults.length > 0) throw new Error(`the control plane logged errors:\n${faults.join('\n')}`)
    },
  }
}

async function ownBroker(folder: string, authority: AuthoritySecrets) {
  let running = await startLocalMosquitto(folder, { authority, address: '127.0.0.1' })
  const { access } = running
  return {
    access,
    client: async (clientId: string): Promise<MqttClient> => {
      const client = connectBroker(access, { clientId, log: () => {} })
      await new Promise<void>(resolve => client.once('connect', () => resolve()))
      return client
    },
    /** Everything it retained is lost, as after a crash before it saved. */
    restart: async (): Promise<void> => {
      await running.close()
      rmSync(join(folder, 'data'), { recursive: true, force: true })
      running = await startLocalMosquitto(folder, {
        authority,
        address: '127.0.0.1',
        port: Number(new URL(access.url).port),
      })
    },
    close: () => running.close(),
  }
}

export interface Tenant {
  organisation: string
  token: string
  client: ApiClient
}

/** An organisation of its own for a test, so that tests don't see each other. */
export async function newTenant(runtime: Runtime, name = 'tenant'): Promise<Tenant> {
  const instance = new ApiClient({ url: runtime.url, token: runtime.instanceToken })
  const { body } = await instance.call(createOrganisation, { body: { name } })
  return {
    organisation: body.organisation.id,
    token: body.token,
    client: new ApiClient({ url: runtime.url, token: body.token }),
  }
}
