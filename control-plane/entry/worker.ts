import { connect } from 'cloudflare:sockets'
import { createApp } from '../app.ts'
import { signingDeps } from '../auth/signing-keys.ts'
import { noBroker } from '../broker/publisher.ts'
import { SocketPublisher } from '../broker/socket-publisher.ts'
import { openDatabase } from '../db/client.ts'
import type { Deps } from '../deps.ts'
import { sweep } from '../services/sweep.ts'
import { settingsOf } from './environment.ts'

/** What wrangler.toml and its secrets give. */
interface Env extends Record<string, unknown> {
  HYPERDRIVE?: { connectionString: string }
}
interface Execution {
  waitUntil: (work: Promise<unknown>) => void
}

/** Workers allow six connections at once for a request. */
const connectionsMax = 5

/**
 * Everything that holds a connection is made anew for each request, and never closed by hand: the runtime closes it, and
 * postgres.js raises errors when it is asked to (its issue 1202).
 */
async function depsOf(env: Env, execution: Execution): Promise<Deps> {
  const { HYPERDRIVE: hyperdrive, ...rest } = env
  const settings = settingsOf({ ...rest, DATABASE_URL: hyperdrive?.connectionString ?? env.DATABASE_URL })
  const { database } = openDatabase({ url: settings.databaseUrl, max: connectionsMax })
  return {
    database,
    publisher: settings.mqttUrl === null ? noBroker : new SocketPublisher(settings.mqttUrl, openSocket),
    ...(await signingDeps(settings.secrets)),
    authority: settings.authority,
    identityProviders: settings.identityProviders,
    publicUrl: settings.publicUrl,
    witness: settings.witness,
    brokerUrl: settings.brokerUrl,
    limits: settings.limits,
    children: () => [],
    // Reports come by HTTPS alone, so whoever was not heard said nothing.
    hearingSince: new Date(0),
    now: () => new Date(),
    later: work => execution.waitUntil(work.catch(() => {})),
    log: line => console.log(JSON.stringify(line)),
    clientAddress: request => request.headers.get('cf-connecting-ip') ?? '',
  }
}

function openSocket({ host, port, tls }: { host: string; port: number; tls: boolean }) {
  const socket = connect({ hostname: host, port }, { secureTransport: tls ? 'on' : 'off', allowHalfOpen: false })
  return { readable: socket.readable, writable: socket.writable, close: () => socket.close() }
}

const perRequest = new WeakMap<Request, Deps>()
const { app } = createApp(context => {
  const deps = perRequest.get(context.req.raw)
  if (deps === undefined) throw new Error('a request without its surroundings')
  return deps
})

// biome-ignore lint/style/noDefaultExport: the runtime looks for a default export.
export default {
  async fetch(request: Request, env: Env, execution: Execution): Promise<Response> {
    perRequest.set(request, await depsOf(env, execution))
    return app.fetch(request)
  },
  /** By the cron trigger: what is due, and what the outbox still holds. */
  async scheduled(_event: unknown, env: Env, execution: Execution): Promise<void> {
    await sweep(await depsOf(env, execution))
  },
}
