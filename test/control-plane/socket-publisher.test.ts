import assert from 'node:assert/strict'
import { Duplex } from 'node:stream'
import { test } from 'node:test'
import { connect } from 'node:tls'
import { type ByteSocket, SocketPublisher } from '../../control-plane/broker/socket-publisher.ts'
import { downTopic } from '../../shared/contract/topics.ts'
import { ulid } from '../../shared/ids.ts'
import { nodeRuntime } from './support/runtime.ts'

test('the publisher of Workers, a connection for each batch by the codec alone, delivers every message once it is acknowledged', async () => {
  const runtime = await nodeRuntime({ broker: null })
  const listener = await runtime.brokerClient!('listener')
  try {
    const topic = downTopic({ organisation: ulid(Date.now()), host: ulid(Date.now()) }, 'cmd')
    const came: string[] = []
    listener.on('message', (_topic, payload) => came.push(payload.toString()))
    await listener.subscribeAsync(topic, { qos: 1 })
    const { url, tls } = runtime.brokerAccess!
    const publisher = new SocketPublisher(url, ({ host: name, port }) => {
      const { authorityPem, certificatePem, keyPem } = tls!
      const socket = connect({ host: name, port, ca: authorityPem, cert: certificatePem, key: keyPem })
      const { readable, writable } = Duplex.toWeb(socket) as unknown as Pick<ByteSocket, 'readable' | 'writable'>
      return { readable, writable, close: async () => void socket.destroy() }
    })
    const messages = Array.from({ length: 50 }, (_, at) => ({
      topic,
      payload: `${at}`,
      qos: 1 as const,
      retain: false,
      expirySeconds: 60,
    }))
    assert.deepEqual(
      await publisher.publish(messages),
      messages.map(() => null),
    )
    for (const end = Date.now() + 10_000; came.length < messages.length && Date.now() < end; )
      await new Promise(resolve => setTimeout(resolve, 20))
    assert.deepEqual(
      came,
      messages.map(message => message.payload),
    )
    const nobody = new SocketPublisher('mqtt://127.0.0.1:1', () => {
      throw new Error('refused')
    })
    assert.deepEqual(await nobody.publish(messages.slice(0, 1)), ['the broker is not reached: refused'])
  } finally {
    listener.end(true)
    await runtime.close()
  }
})
