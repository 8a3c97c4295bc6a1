import { Socket } from 'node:net'
import mqtt, { type MqttClient } from 'mqtt'
import { packetBytesMax } from './limits.ts'
import type { Publication, Publisher } from './publisher.ts'

/** How this process reaches the broker. */
export interface BrokerAccess {
  /** mqtts://host:port, or mqtt:// on loopback; user and password in it, where the broker wants them. */
  url: string
  tls: { authorityPem: string; certificatePem: string; keyPem: string } | null
}

/** Reconnecting more often only adds to what a broker in trouble has to do. */
const reconnectMs = 1_000
const connectLimitMs = 10_000
const publishLimitMs = 10_000

/** A long-lived session for Node and Deno: clean, so that the broker keeps nothing for us while we are away. */
export function connectBroker(
  access: BrokerAccess,
  options: { clientId: string; log: (why: string) => void },
): MqttClient {
  const { tls } = access
  const client = mqtt.connect(access.url, {
    protocolVersion: 5,
    clientId: options.clientId,
    clean: true,
    reconnectPeriod: reconnectMs,
    connectTimeout: connectLimitMs,
    keepalive: 30,
    // What can't go out now is in the outbox; a queue here would be a second one that dies with us.
    queueQoSZero: false,
    resubscribe: true,
    properties: { receiveMaximum: 200, maximumPacketSize: packetBytesMax },
    ...(tls !== null && { ca: tls.authorityPem, cert: tls.certificatePem, key: tls.keyPem, rejectUnauthorized: true }),
  })
  // mqtt.js throws an error that nobody listens for, and reconnects by itself after it.
  client.on('error', error => options.log(error.message))
  client.on('connect', () => sendAtOnce(client))
  return client
}

/** Nagle's algorithm holds a packet until the broker has acknowledged the one before, which it puts off for up to 40 ms. */
function sendAtOnce({ stream }: MqttClient): void {
  if (stream instanceof Socket) stream.setNoDelay(true)
}

export class MqttPublisher implements Publisher {
  readonly #client: MqttClient

  constructor(client: MqttClient) {
    this.#client = client
  }

  publish(messages: readonly Publication[]): Promise<(string | null)[]> {
    return Promise.all(messages.map(message => this.#publishOne(message)))
  }

  #publishOne(message: Publication): Promise<string | null> {
    if (!this.#client.connected) return Promise.resolve('the broker is not connected')
    return new Promise(resolve => {
      const timer = setTimeout(
        () => resolve(`no acknowledgement of the broker within ${publishLimitMs} ms`),
        publishLimitMs,
      )
      const { topic, payload, qos, retain, expirySeconds } = message
      const properties = expirySeconds === null ? {} : { messageExpiryInterval: expirySeconds }
      this.#client.publish(topic, payload, { qos, retain, properties }, error => {
        clearTimeout(timer)
        resolve(error === undefined || error === null ? null : error.message)
      })
    })
  }
}
