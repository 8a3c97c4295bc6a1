import { createApp } from '../app.ts'
import { signingDeps } from '../auth/signing-keys.ts'
import { Ingest } from '../broker/ingest.ts'
import { connectBroker, MqttPublisher } from '../broker/mqtt-client.ts'
import { noBroker } from '../broker/publisher.ts'
import { openDatabase } from '../db/client.ts'
import type { Deps } from '../deps.ts'
import { faultText } from '../fault-text.ts'
import { sweep } from '../services/sweep.ts'
import { settingsOf } from './environment.ts'

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
const sweepEveryMs = 2_000

const env = Deno.env.toObject()
const settings = settingsOf(env)
const { database } = openDatabase({ url: settings.databaseUrl, max: connectionsMax })
const log: Deps['log'] = line => console.log(JSON.stringify(line))
const client =
  settings.mqttUrl === null
    ? null
    : connectBroker(
        { url: settings.mqttUrl, tls: null },
        { clientId: `control-plane-${crypto.randomUUID()}`, log: message => log({ level: 'warning', message }) },
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
  brokerUrl: settings.mqttUrl,
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

setInterval(() => {
  sweep(deps).catch((error: unknown) => log({ level: 'error', message: `the sweep failed: ${faultText(error)}` }))
}, sweepEveryMs)

const [hostname = '127.0.0.1', port = '7480'] = (env.LISTEN ?? '').split(/:(?=\d+$)/).filter(Boolean)
Deno.serve(
  { hostname, port: Number(port), onListen: at => console.log(`control plane at http://${at.hostname}:${at.port}`) },
  (request, info) => {
    addresses.set(request, info.remoteAddr.hostname)
    return app.fetch(request)
  },
)
