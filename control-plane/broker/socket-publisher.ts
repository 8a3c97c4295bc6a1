import mqttPacket, { type IConnectPacket, type Packet } from 'mqtt-packet'
import { packetBytesMax } from './limits.ts'
import type { Publication, Publisher } from './publisher.ts'

/**
 * Publishes over a connection of its own for each batch, with the codec alone: on Workers a socket belongs to one
 * request, which a long-lived client cannot bear. CONNECT, the publications with their acknowledgements, DISCONNECT.
 */
export interface ByteSocket {
  readable: ReadableStream<Uint8Array>
  writable: WritableStream<Uint8Array>
  close: () => Promise<void>
}

export type OpenSocket = (at: { host: string; port: number; tls: boolean }) => ByteSocket

/** From CONNECT to the last acknowledgement. */
const batchLimitMs = 8_000
/** MQTT 5, 4.9: what the broker takes unacknowledged at least, by default, is more; this keeps memory small. */
const inFlightMax = 20
const failed = 0x80

export class SocketPublisher implements Publisher {
  readonly #url: URL
  readonly #open: OpenSocket

  constructor(url: string, open: OpenSocket) {
    this.#url = new URL(url)
    this.#open = open
  }

  async publish(messages: readonly Publication[]): Promise<(string | null)[]> {
    const results: (string | null)[] = messages.map(() => 'the broker did not acknowledge it in time')
    if (messages.length === 0) return results
    const tls = this.#url.protocol === 'mqtts:'
    let socket: ByteSocket | null = null
    let timer: ReturnType<typeof setTimeout> | undefined
    const timeout = new Promise<void>(resolve => {
      timer = setTimeout(resolve, batchLimitMs)
    })
    try {
      socket = this.#open({ host: this.#url.hostname, port: Number(this.#url.port) || (tls ? 8883 : 1883), tls })
      await Promise.race([this.#converse(socket, messages, results), timeout])
    } catch (error) {
      const why = error instanceof Error ? error.message : String(error)
      for (const [at, result] of results.entries())
        if (result !== null) results[at] = `the broker is not reached: ${why}`
    } finally {
      clearTimeout(timer)
      await socket?.close().catch(() => {})
    }
    return results
  }

  async #converse(socket: ByteSocket, messages: readonly Publication[], results: (string | null)[]): Promise<void> {
    const writer = socket.writable.getWriter()
    const send = (packet: Packet): Promise<void> =>
      writer.write(new Uint8Array(mqttPacket.generate(packet, { protocolVersion: 5 })))
    const packets = received(socket)
    await send(this.#connectPacket())
    const greeting = (await packets.next()).value
    if (greeting?.cmd !== 'connack') throw new Error('it did not answer CONNECT')
    if ((greeting.reasonCode ?? 0) >= failed)
      throw new Error(`it refuses the connection (reason ${greeting.reasonCode})`)
    let next = 0
    let open = 0
    const offer = async (): Promise<void> => {
      while (next < messages.length && open < inFlightMax) {
        const at = next++
        const message = messages[at]!
        await send(publishPacket(message, at + 1))
        if (message.qos === 1) open++
        else results[at] = null
      }
    }
    await offer()
    while (open > 0) {
      const { value: packet, done } = await packets.next()
      if (done === true) throw new Error('it closed the connection')
      if (packet.cmd !== 'puback') continue
      const at = (packet.messageId ?? 0) - 1
      if (at < 0 || at >= messages.length) continue
      open--
      const code = packet.reasonCode ?? 0
      results[at] = code >= failed ? `the broker refuses ${messages[at]!.topic} (reason ${code})` : null
      await offer()
    }
    await send({ cmd: 'disconnect', reasonCode: 0 } as Packet)
  }

  #connectPacket(): IConnectPacket {
    const { username, password } = this.#url
    return {
      cmd: 'connect',
      protocolId: 'MQTT',
      protocolVersion: 5,
      clean: true,
      keepalive: 0,
      clientId: `control-plane-${crypto.randomUUID()}`,
      properties: { sessionExpiryInterval: 0, maximumPacketSize: packetBytesMax },
      ...(username !== '' && {
        username: decodeURIComponent(username),
        password: Buffer.from(decodeURIComponent(password)),
      }),
    }
  }
}

const publishPacket = (message: Publication, messageId: number): Packet => ({
  cmd: 'publish',
  topic: message.topic,
  payload: message.payload,
  qos: message.qos,
  retain: message.retain,
  dup: false,
  ...(message.qos === 1 && { messageId }),
  ...(message.expirySeconds !== null && { properties: { messageExpiryInterval: message.expirySeconds } }),
})

/** Packets as they are complete. */
async function* received(socket: ByteSocket): AsyncGenerator<Packet, undefined> {
  const parser = mqttPacket.parser({ protocolVersion: 5 })
  const ready: Packet[] = []
  parser.on('packet', packet => ready.push(packet))
  let fault: Error | null = null
  parser.on('error', (error: Error) => {
    fault = error
  })
  const reader = socket.readable.getReader()
  for (;;) {
    for (let packet = ready.shift(); packet !== undefined; packet = ready.shift()) yield packet
    const { done, value } = await reader.read()
    if (done) return undefined
    parser.parse(Buffer.from(value))
    if (fault !== null) throw fault
  }
}
