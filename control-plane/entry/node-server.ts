import { randomUUID } from 'node:crypto'
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { serve } from '@hono/node-server'
import { createApp } from '../app.ts'
import { signingDeps } from '../auth/signing-keys.ts'
import type { AuthoritySecrets } from '../auth/x509.ts'
import { Ingest } from '../broker/ingest.ts'
import { type BrokerAccess, connectBroker, MqttPublisher } from '../broker/mqtt-client.ts'
import { noBroker, type Publisher } from '../broker/publisher.ts'
import { openDatabase } from '../db/client.ts'
import { migrateDatabase } from '../db/migrate.ts'
import { type Deps, defaultLimits, type IdentityProvider, type Limits, type LogLine, publicWitness } from '../deps.ts'
import { pushAgain } from '../services/pair/push-desired.ts'
import { sweep } from '../services/sweep.ts'
import { bootstrap, type FirstTokens } from './bootstrap.ts'
import { type ListenAddress, whyUnreached, withoutCredentials } from './environment.ts'
import { keepRunning } from './local/kept.ts'
import { type LocalMosquitto, startLocalMosquitto } from './local/mosquitto.ts'
import { occupy } from './local/occupied.ts'
import { type LocalPostgres, startLocalPostgres } from './local/postgres.ts'
import { RetiredHosts } from './local/retired.ts'
import { localAuthority, localSecrets } from './local/secrets.ts'
import { startWitnessListener } from './local/witness-listener.ts'
import { brokerLog, startSweeping } from './long-lived.ts'

export interface NodeOptions {
  dataDir: string
  listen: ListenAddress
  /** null: a cluster of its own, as a child. */
  databaseUrl: string | null
  /** null: a Mosquitto of its own, as a child; 'none': no broker, everything travels by HTTPS. */
  broker: BrokerAccess | null | 'none'
  /** null: as it listens. */
  publicUrl: string | null
  identityProviders: readonly IdentityProvider[]
  limits?: Limits
  log: (line: LogLine) => void
}

export interface RunningControlPlane {
  url: string
  deps: Deps
  /** That were made at this start: shown once. */
  tokens: FirstTokens | null
  databaseUrl: string
  broker: BrokerAccess | null
  authority: AuthoritySecrets
  /** Of the superuser of a cluster of its own. */
  adminUrl: string | null
  /** Resolves when a child has ended by itself too often: without it there is nothing to serve. */
  failed: Promise<string>
  close: () => Promise<void>
}

/** Enough for a burst of requests; PostgreSQL's default allows a hundred to everybody together. */
const connectionsMax = 20

export async function startControlPlane(options: NodeOptions): Promise<RunningControlPlane> {
  const closing: (() => Promise<void>)[] = []
  const close = async (): Promise<void> => {
    for (const one of closing.splice(0).reverse()) await one()
  }
  try {
    // PostgreSQL's user passes through to its own folder; every secret lies in a folder or file of its own mode.
    mkdirSync(options.dataDir, { recursive: true, mode: 0o711 })
    if (options.databaseUrl === null || options.broker === null) {
      const leave = occupy(options.dataDir)
      closing.push(async () => leave())
    }
    const secrets = await localSecrets(join(options.dataDir, 'keys'))
    const postgres = options.databaseUrl === null ? await keptPostgres(options) : null
    if (postgres !== null) closing.push(postgres.close)
    const databaseUrl = options.databaseUrl ?? postgres!.first.url
    const exempt = await migrateDatabase(databaseUrl)
    if (exempt !== null) options.log({ level: 'warning', message: exempt })
    const { database, close: closeDatabase } = openDatabase({ url: databaseUrl, max: connectionsMax })
    closing.push(closeDatabase)
    const authority = await localAuthority(join(options.dataDir, 'keys'))
    const lost = async (): Promise<void> => pushAgain(deps, { since: new Date(deps.now().getTime() - unsavedMs) })
    const mosquitto = options.broker === null ? await keptMosquitto(options, { authority, restarted: lost }) : null
    if (mosquitto !== null) closing.push(mosquitto.close)
    const access = options.broker === 'none' ? null : (options.broker ?? mosquitto!.first.access)
    const kept = [postgres, mosquitto].filter(one => one !== null)
    const client =
      access === null
        ? null
        : connectBroker(access, { clientId: `control-plane-${randomUUID()}`, log: brokerLog(options.log) })
    if (client !== null) closing.push(() => client.endAsync(true))
    const publisher: Publisher = client === null ? noBroker : new MqttPublisher(client)
    const working = new Set<Promise<unknown>>()
    const deps: Deps = {
      database,
      publisher,
      ...(await signingDeps(secrets)),
      identityProviders: options.identityProviders,
      publicUrl: options.publicUrl ?? '',
      witness: publicWitness(options.publicUrl ?? ''),
      authority,
      brokerUrl: access === null ? null : withoutCredentials(access.url),
      limits: options.limits ?? defaultLimits,
      children: () => kept.map(one => one.health()),
      hearingSince: new Date(),
      now: () => new Date(),
      later: work => {
        const settled = work.catch(() => {}).finally(() => working.delete(settled))
        working.add(settled)
      },
      log: options.log,
      clientAddress: request => addresses.get(request) ?? '',
    }
    const ingest = client === null ? null : new Ingest(deps, client)
    if (ingest !== null) closing.push(() => ingest.close())
    const { app, url, stop } = await listen(options, deps)
    closing.push(stop)
    deps.publicUrl = options.publicUrl ?? url
    const unreached =
      mosquitto === null && deps.witness !== null ? null : whyUnreached({ ...options, publicUrl: deps.publicUrl })
    if (unreached !== null) options.log({ level: 'warning', message: unreached })
    if (deps.witness === null) {
      const folder = join(options.dataDir, 'keys')
      const listener = await startWitnessListener({ folder, authority, ...witnessPlace(options), fetch: app.fetch })
      closing.push(listener.close)
      deps.witness = listener.place
    }
    const retired = new RetiredHosts()
    const sweeping = startSweeping(
      async () => {
        await sweep(deps)
        if (mosquitto !== null) await retired.tell(deps, mosquitto.present())
      },
      { log: options.log },
    )
    closing.push(async () => {
      await sweeping.stop()
      await Promise.all(working)
    })
    const tokens = await bootstrap(database, deps.now())
    return {
      url,
      deps,
      tokens,
      broker: access,
      authority,
      databaseUrl,
      adminUrl: postgres?.first.adminUrl ?? null,
      failed: Promise.race([...kept.map(one => one.failed), new Promise<never>(() => {})]),
      close,
    }
  } catch (error) {
    await close()
    throw error
  }
}

function keptPostgres({ dataDir, log }: NodeOptions) {
  return keepRunning<LocalPostgres>({
    name: 'postgres',
    start: again => startLocalPostgres(join(dataDir, 'postgres'), again === null ? {} : { port: again.port }),
    log,
  })
}

function keptMosquitto(
  options: NodeOptions,
  { authority, restarted }: { authority: AuthoritySecrets; restarted: () => Promise<void> },
) {
  const place = brokerPlace(options)
  return keepRunning<LocalMosquitto>({
    name: 'mosquitto',
    start: again => {
      const at = again === null ? place : { ...place, port: again.port }
      return startLocalMosquitto(join(options.dataDir, 'mosquitto'), { authority, ...at })
    },
    restarted,
    log: options.log,
  })
}

/** It saves what it retains each minute. */
const unsavedMs = 2 * 60_000

/** Hosts learn it at their enrolment, so it is the same one after each start; a free port where ours is one too. */
function brokerPlace({ listen: { address, port } }: Pick<NodeOptions, 'listen'>): { address: string; port?: number } {
  const reachable = ['0.0.0.0', '::'].includes(address) ? '127.0.0.1' : address
  return { address: reachable, ...(port !== 0 && { port: port + brokerPortOffset }) }
}
const brokerPortOffset = 3
const witnessPortOffset = 4

/** As the broker's. */
function witnessPlace({ listen: { address, port } }: NodeOptions): { address: string; port: number } {
  return {
    address: brokerPlace({ listen: { address, port } }).address,
    port: port === 0 ? 0 : port + witnessPortOffset,
  }
}

/** The address of the socket behind a request, which a Request does not carry. */
const addresses = new WeakMap<Request, string>()

type App = ReturnType<typeof createApp>['app']

function listen(options: NodeOptions, deps: Deps): Promise<{ app: App; url: string; stop: () => Promise<void> }> {
  const { app } = createApp(context => {
    const { incoming } = context.env as { incoming?: { socket: { remoteAddress?: string } } }
    addresses.set(context.req.raw, incoming?.socket.remoteAddress ?? '')
    return deps
  })
  return new Promise((resolve, reject) => {
    const server = serve({ fetch: app.fetch, hostname: options.listen.address, port: options.listen.port }, info => {
      const host = info.family === 'IPv6' ? `[${info.address}]` : info.address
      const stop = (): Promise<void> =>
        new Promise(done => {
          server.close(() => done())
          if ('closeAllConnections' in server) server.closeAllConnections()
        })
      resolve({ app, url: `http://${host}:${info.port}`, stop })
    })
    server.once('error', (error: Error) => {
      const { address, port } = options.listen
      reject(new Error(`cannot listen on ${address}, port ${port} (${error.message}): choose another LISTEN`))
    })
  })
}
