import { generateKeyPairSync } from 'node:crypto'
import { connect, createSecureContext, type TLSSocket } from 'node:tls'
import mqttPacket, { type Packet } from 'mqtt-packet'
import type { SigningSecrets } from '../../../control-plane/auth/signing-keys.ts'
import { type AuthoritySecrets, authorityPem, issueCertificate } from '../../../control-plane/auth/x509.ts'
import { heartbeatKeyOf, heartbeatMac, heartbeatSecretOf } from '../../../shared/contract/heartbeat-mac.ts'
import { type DocumentSigner, documentSigner, type PrivateJwk } from '../../../shared/contract/signing.ts'
import { brokerName, upTopic } from '../../../shared/contract/topics.ts'
import { pairReport } from '../../control-plane/support/host.ts'
import { hostId } from './stand.ts'

/**
 * A child of the benchmark: thousands of agents, each with a TLS connection and a certificate of its own, that say what
 * agents say, as often, by the codec alone. A message's sequence number is the time at which it was sent, in ms.
 */
interface Start {
  do: 'connect'
  organisation: string
  count: number
  port: number
  authority: AuthoritySecrets
  secrets: SigningSecrets
  /** All hosts sign with one: making ten thousand would be no part of what is measured. */
  hostKey: PrivateJwk
}
interface Pace {
  do: 'pace'
  heartbeatEveryMs: number
  /** null: none. */
  reportEveryMs: number | null
}

interface Agent {
  id: string
  primary: boolean
  socket: TLSSocket
  heartbeatKey: string
  signer: DocumentSigner
  heartbeats: number
  reports: number
}

const connectAtOnce = 64
const tickMs = 10
/** Below the broker's keep-alive; the paced messages keep a connection alive as well. */
const keepaliveSeconds = 600
let agents: Agent[] = []
let organisation = ''
let sent = { heartbeats: 0, reports: 0 }
let pacing: { stop: () => void } | null = null

async function connectAll(start: Start): Promise<void> {
  organisation = start.organisation
  // One key for all of them saves minutes of making keys; the certificates differ by the name that the broker reads.
  const { publicKey, privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const spki = new Uint8Array(publicKey.export({ type: 'spki', format: 'der' }))
  const key = privateKey.export({ type: 'pkcs8', format: 'pem' }).toString()
  const ca = authorityPem(start.authority)
  const secret = heartbeatSecretOf(start.secrets.signingKey.d)
  let next = 1
  const made: Agent[] = []
  const one = async (): Promise<void> => {
    while (next <= start.count) {
      const number = next++
      const id = hostId(number)
      const now = new Date()
      const notAfter = new Date(now.getTime() + 86_400_000)
      const cert = await issueCertificate(
        start.authority,
        {
          commonName: brokerName.host({ organisation, host: id }),
          use: 'client',
          publicKey: spki,
          names: [],
          notAfter,
        },
        now,
      )
      const socket = await connected(createSecureContext({ ca, cert, key }), { id, port: start.port })
      const heartbeatKey = heartbeatKeyOf(secret, id)
      const signer = await documentSigner(id, start.hostKey)
      made.push({ id, primary: number % 2 === 1, socket, heartbeatKey, signer, heartbeats: 0, reports: 0 })
    }
  }
  await Promise.all(Array.from({ length: connectAtOnce }, one))
  agents = made.sort((x, y) => (x.id < y.id ? -1 : 1))
}

function connected(
  secureContext: ReturnType<typeof createSecureContext>,
  { id, port }: { id: string; port: number },
): Promise<TLSSocket> {
  return new Promise((resolve, reject) => {
    const socket = connect({ host: '127.0.0.1', port, secureContext })
    socket.setNoDelay(true)
    socket.once('secureConnect', () =>
      send(socket, {
        cmd: 'connect',
        protocolId: 'MQTT',
        protocolVersion: 5,
        clean: true,
        keepalive: keepaliveSeconds,
        clientId: id,
        properties: { sessionExpiryInterval: 0 },
      }),
    )
    socket.once('data', () => {
      // CONNACK; what comes later are acknowledgements of reports.
      socket.resume()
      resolve(socket)
    })
    socket.once('error', reject)
    socket.once('close', () => {
      if (pacing === null) return
      process.stderr.write(`the broker closed the connection of ${id}\n`)
      process.exit(1)
    })
  })
}

const send = (socket: TLSSocket, packet: Packet): void => {
  socket.write(mqttPacket.generate(packet, { protocolVersion: 5 }))
}

function heartbeat(agent: Agent): void {
  const heartbeat = {
    v: 2 as const,
    boot: 2,
    seq: Date.now(),
    role: agent.primary ? ('primary' as const) : ('backup' as const),
    epoch: 1,
    observedGeneration: 1,
    at: Date.now(),
  }
  const mac = heartbeatMac(agent.heartbeatKey, { host: agent.id, heartbeat })
  publish(agent, 'hb', { text: JSON.stringify({ ...heartbeat, mac }), qos: 0 })
  sent.heartbeats++
}

const startedAt = new Date().toISOString()
const pairParts = [pairReport({ role: 'backup', primary: 'a' }), pairReport({ role: 'primary', primary: 'a' })]
async function report(agent: Agent): Promise<void> {
  const now = new Date()
  const body = {
    v: 1,
    boot: 2,
    seq: now.getTime(),
    observedGeneration: 1,
    applied: { status: 'True', generation: 1, why: '' },
    pair: pairParts[agent.primary ? 1 : 0],
    agent: { version: '0.1.0', startedAt },
    sentAt: now.toISOString(),
    freshAt: now.toISOString(),
    certificateEndsAt: null,
  }
  publish(agent, 'report', {
    text: await agent.signer.sign('report', { v: 2, at: now.getTime(), report: body }),
    qos: 1,
  })
  sent.reports++
}

function publish(
  { id, socket, reports }: Agent,
  channel: 'hb' | 'report',
  { text, qos }: { text: string; qos: 0 | 1 },
): void {
  send(socket, {
    cmd: 'publish',
    topic: upTopic({ organisation, host: id }, channel),
    payload: text,
    qos,
    dup: false,
    retain: qos === 1,
    ...(qos === 1 && { messageId: (reports % 65_000) + 1 }),
  })
}

/** Each agent at its own point of the period, evenly, as hosts that were started at different times. */
function pace({ heartbeatEveryMs, reportEveryMs }: Pace): void {
  pacing?.stop()
  const began = performance.now()
  let doneHeartbeats = 0
  let doneReports = 0
  const timer = setInterval(() => {
    const elapsed = performance.now() - began
    const due = (every: number): number => Math.floor((elapsed / every) * agents.length)
    for (const until = due(heartbeatEveryMs); doneHeartbeats < until; doneHeartbeats++) {
      heartbeat(agents[doneHeartbeats % agents.length]!)
    }
    if (reportEveryMs === null) return
    for (const until = due(reportEveryMs); doneReports < until; doneReports++) {
      const agent = agents[doneReports % agents.length]!
      void report(agent)
      agent.reports++
    }
  }, tickMs)
  pacing = {
    stop: () => {
      clearInterval(timer)
      pacing = null
    },
  }
}

process.on('message', async (message: Start | Pace | { do: 'stop' } | 'end') => {
  if (message === 'end') process.exit(0)
  if (message.do === 'connect') {
    await connectAll(message)
    process.send?.(agents.length)
  } else if (message.do === 'pace') {
    sent = { heartbeats: 0, reports: 0 }
    pace(message)
    process.send?.('paced')
  } else {
    pacing?.stop()
    process.send?.(sent)
  }
})
process.send?.('ready')
