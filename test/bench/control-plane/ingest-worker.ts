import type { SigningSecrets } from '../../../control-plane/auth/signing-keys.ts'
import { Ingest } from '../../../control-plane/broker/ingest.ts'
import { type BrokerAccess, connectBroker, MqttPublisher } from '../../../control-plane/broker/mqtt-client.ts'
import { sweep } from '../../../control-plane/services/sweep.ts'
import { benchDeps } from './bench-deps.ts'

/** A child of the benchmark: one ingest worker, and the sweep beside it as in the Node entry. */
const [databaseUrl, access, secrets] = process.argv.slice(2) as [string, string, string]
const client = connectBroker(JSON.parse(access) as BrokerAccess, {
  clientId: `ingest-${process.pid}`,
  log: why => void process.stderr.write(`${why}\n`),
})
const { deps, close } = await benchDeps(
  { databaseUrl, secrets: JSON.parse(secrets) as SigningSecrets },
  { publisher: new MqttPublisher(client) },
)
const ingest = new Ingest(deps, client)
const sweepEveryMs = 2_000
let sweeping = false
const timer = setInterval(() => {
  if (sweeping) return
  sweeping = true
  void sweep(deps).finally(() => {
    sweeping = false
  })
}, sweepEveryMs)
client.once('connect', () => process.send?.('ready'))
process.on('message', async message => {
  if (message === 'counts')
    process.send?.({ ...ingest.counts, cpuSeconds: process.cpuUsage().user / 1e6 + process.cpuUsage().system / 1e6 })
  if (message === 'end') {
    clearInterval(timer)
    await client.endAsync(true)
    await ingest.close()
    await close()
    process.exit(0)
  }
})
