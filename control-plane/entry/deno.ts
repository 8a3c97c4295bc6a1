import { createApp } from '../app.ts'
import { signingDeps } from '../auth/signing-keys.ts'
import { Ingest } from '../broker/ingest.ts'
import { connectBroker, MqttPublisher } from '../broker/mqtt-client.ts'
import { noBroker } from '../broker/publisher.ts'
import { openDatabase } from '../db/client.ts'
import type { Deps } from '../deps.ts'
import { sweep } from '../services/sweep.ts'
import { listenDefault, listenOf, settingsOf } from './environment.ts'
import { brokerLog, startSweeping } from './long-lived.ts'

/** The part of Deno's global that we use. */
declare const Deno: {
  env: { toObject: () => Record<string, string> }
  serve: (
    options: { hostname: string; port: number; onListen: (at: { hostname: string; port: number }) => void },
    handler: (request: Request, info: { remoteAddr: { hostname: string } }) => Response | Promise<Response>,
  ) => unknown
}

/** The control plane under Deno: settings as on Workers, a long-lived process as under Node. */
const connectionsMax = 20

const env = Deno.env.toObject()
const settings = settingsOf(env)
const listen = listenOf(env.LISTEN || listenDefault)
const { database } = openDatabase({ url: settings.databaseUrl, max: connectionsMax })
const log: Deps['log'] = line => console.log(JSON.stringify(line))
const client =
  settings.mqttUrl === null
    ? null
    : connectBroker(
        { url: settings.mqttUrl, tls: null },
        { clientId: `control-plane-${crypto.randomUUID()}`, log: brokerLog(log) },
      )
const addresses = new WeakMap<Request, string>()
const deps: Deps = {
  database,
  publisher: client === null ? noBroker : new MqttPublisher(client),
  ...(await signingDeps(settings.secrets)),
  authority: settings.authority,
  identityProviders: settings.identityProviders,
  publicUrl: settings.publicUrl,
  witness: settings.witness,
  brokerUrl: settings.brokerUrl,
  limits: settings.limits,
  children: () => [],
  hearingSince: new Date(),
  now: () => new Date(),
  later: work => void work.catch(() => {}),
  log,
  clientAddress: request => addresses.get(request) ?? '',
}
const { app } = createApp(() => deps)
// What hosts say over the broker, as under Node; it lives as long as this process.
if (client !== null) new Ingest(deps, client)

startSweeping(() => sweep(deps), { log })

Deno.serve(
  {
    hostname: listen.address,
    port: listen.port,
    onListen: at => {
      const host = at.hostname.includes(':') ? `[${at.hostname}]` : at.hostname
      console.log(`control plane at http://${host}:${at.port}\nthe API to browse: http://${host}:${at.port}/docs`)
    },
  },
  (request, info) => {
    addresses.set(request, info.remoteAddr.hostname)
    return app.fetch(request)
  },
)
