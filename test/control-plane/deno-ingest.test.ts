import assert from 'node:assert/strict'
import { test } from 'node:test'
import mqtt from 'mqtt'
import { getHost } from '../../shared/contract/api/hosts.ts'
import { upTopic } from '../../shared/contract/topics.ts'
import { denoRuntime } from './support/other-runtimes.ts'
import { twoHosts } from './support/pair.ts'

test('under Deno as under Node, what a host says over the broker is shown', async () => {
  const runtime = await denoRuntime()
  const sender = mqtt.connect(runtime.mqttUrl, { protocolVersion: 5 })
  try {
    const { client, a } = await twoHosts(runtime)
    const { organisation, host } = a.identity
    const shown = async () => (await client.call(getHost, { params: { host } })).body.observedGeneration
    for (const end = Date.now() + 20_000; (await shown()) !== 5 && Date.now() < end; ) {
      const said = await a.said({ boot: 2, observedGeneration: 5 })
      await sender.publishAsync(upTopic({ organisation, host }, 'report'), said, { qos: 1 })
      await new Promise(resolve => setTimeout(resolve, 100))
    }
    assert.equal(await shown(), 5)
  } finally {
    sender.end(true)
    await runtime.close()
  }
})
