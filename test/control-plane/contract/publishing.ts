import assert from 'node:assert/strict'
import { test } from 'node:test'
import mqtt from 'mqtt'
import { changeSettings, getPair, switchOver } from '../../../shared/contract/api/pairs.ts'
import { downTopic } from '../../../shared/contract/topics.ts'
import { adoptedPair } from '../support/pair.ts'
import type { Runtime } from '../support/runtime.ts'

/** By whichever way the runtime has: a long-lived client, or a connection for each batch. */
export function publishingTests(runtime: () => Runtime): void {
  test('what a change means for a host is on the broker at once: its wish retained, its command not', async () => {
    const { client, id, a } = await adoptedPair(runtime())
    const address = { organisation: a.identity.organisation, host: a.identity.host }
    const listener = await mqtt.connectAsync(runtime().mqttUrl, { protocolVersion: 5, reconnectPeriod: 0 })
    try {
      const came: { channel: string; payload: string; retain: boolean; expirySeconds: number | undefined }[] = []
      listener.on('message', (topic, payload, packet) =>
        came.push({
          channel: topic.split('/').at(-1)!,
          payload: payload.toString(),
          retain: packet.retain,
          expirySeconds: packet.properties?.messageExpiryInterval,
        }),
      )
      const found = async (wanted: (one: (typeof came)[number]) => boolean): Promise<(typeof came)[number]> => {
        const until = Date.now() + 30_000
        for (;;) {
          const at = came.findIndex(wanted)
          if (at >= 0) return came.splice(at, 1)[0]!
          assert.ok(Date.now() < until, `not within 30 s; there is ${came.map(one => one.channel).join(', ')}`)
          await new Promise(resolve => setTimeout(resolve, 20))
        }
      }
      // As published: what comes after the subscription would otherwise be told as not retained.
      await listener.subscribeAsync(downTopic(address, 'cmd').replace(/cmd$/, '#'), { qos: 1, rap: true })
      const generationOf = (text: string): number =>
        (
          JSON.parse(Buffer.from((JSON.parse(text) as { payload: string }).payload, 'base64url').toString()) as {
            generation: number
          }
        ).generation
      const first = await found(one => one.channel === 'desired')
      assert.deepEqual([first.retain, first.expirySeconds, generationOf(first.payload)], [true, undefined, 1])
      const { etag } = await client.call(getPair, { params: { pair: id } })
      await client.call(changeSettings, { params: { pair: id }, body: { profile: 'fast' }, ifMatch: etag! })
      assert.equal(generationOf((await found(one => one.channel === 'desired')).payload), 2)
      await client.call(switchOver, { params: { pair: id }, body: { reason: 'update' } })
      const command = await found(one => one.channel === 'cmd')
      assert.equal(command.retain, false)
      assert.ok((command.expirySeconds ?? 0) > 0 && command.expirySeconds! <= 300, String(command.expirySeconds))
    } finally {
      await listener.endAsync(true)
    }
  })
}
