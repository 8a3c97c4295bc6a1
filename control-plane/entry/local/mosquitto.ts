import { generateKeyPairSync } from 'node:crypto'
import { chmodSync, chownSync, mkdirSync, writeFileSync } from 'node:fs'
import { connect } from 'node:net'
import { join } from 'node:path'
import { type ConnectionOptions, connect as connectTls } from 'node:tls'
import { topicRoot, upChannels } from '../../../shared/contract/topics.ts'
import { type AuthoritySecrets, authorityPem, issueCertificate } from '../../auth/x509.ts'
import { packetBytesMax } from '../../broker/limits.ts'
import type { BrokerAccess } from '../../broker/mqtt-client.ts'
import { type Child, onFreePort, startChild } from './child.ts'
import { isRoot, systemUser } from './users.ts'

/** Debian's Mosquitto as a child, on a port of its own on loopback, with client certificates of our authority alone. */
export interface LocalMosquitto {
  url: string
  port: number
  access: BrokerAccess
  /** Who has a certificate that has not ended yet and may do nothing with it any more, by the names in them. */
  deny: (names: readonly string[]) => void
  close: () => Promise<void>
  ended: Promise<string>
}

/** In a host's certificate the name is its id; this one is no id. */
const ownName = 'control-plane'
const startLimitMs = 15_000
/** For each client that does not read: a thousand reports of the usual size and more; a thousand of the greatest would be 250 MB. */
const queuedBytesMax = 16 * 1024 * 1024
/** Made anew with each start. */
const certificateDays = 398

/**
 * By the name in its certificate (`shared/contract/topics.ts`), which holds two levels at once: a host, as
 * `organisation/host`, writes and reads below its own organisation and id; an organisation's tooling, as `organisation`,
 * commands that organisation's hosts and reads their answers. For the other kind of name each pattern is a topic that nobody
 * reads or writes. A host writes the channels there are, and no other below its own: each may hold a retained message, and any
 * number of them would fill the broker's memory for everybody.
 */
const accessList = `user ${ownName}
topic readwrite ${topicRoot}/#
topic read $share/#

${upChannels.map(channel => `pattern write ${topicRoot}/%u/up/${channel}`).join('\n')}
pattern read ${topicRoot}/%u/dn/#
pattern write ${topicRoot}/%u/+/dn/cmd
pattern read ${topicRoot}/%u/+/up/ack
`

const denied = (names: readonly string[]): string => names.map(name => `\nuser ${name}\ntopic deny #\n`).join('')

interface Place {
  authority: AuthoritySecrets
  address: string
  port: number
}

/** @param place.port a free one by default */
export function startLocalMosquitto(
  folder: string,
  { port, ...place }: Omit<Place, 'port'> & { port?: number },
): Promise<LocalMosquitto> {
  if (port === undefined) return onFreePort(free => startServer(folder, { ...place, port: free }))
  return waitUntilFree({ ...place, port }).then(() => startServer(folder, { ...place, port }))
}

async function startServer(folder: string, { authority, address, port }: Place): Promise<LocalMosquitto> {
  const user = isRoot() ? (systemUser('mosquitto') ?? systemUser('nobody')) : null
  mkdirSync(join(folder, 'data'), { recursive: true, mode: 0o711 })
  const now = new Date()
  const server = await keyed(authority, { commonName: 'broker', use: 'server', address, now })
  const own = await keyed(authority, { commonName: ownName, use: 'client', address: null, now })
  const path = (name: string): string => join(folder, name)
  const files: [string, string][] = [
    ['ca.pem', authorityPem(authority)],
    ['server.pem', server.certificatePem],
    ['server-key.pem', server.keyPem],
    ['acl', accessList],
    ['mosquitto.conf', configuration({ path, address, port })],
  ]
  for (const [name, text] of files) {
    writeFileSync(path(name), text, { mode: 0o600 })
    chmodSync(path(name), 0o600)
    if (user !== null) chownSync(path(name), user.uid, user.gid)
  }
  if (user !== null) chownSync(path('data'), user.uid, user.gid)
  const child = startChild('mosquitto', ['-c', path('mosquitto.conf')], {
    user,
    deathSignal: 'TERM',
    env: { PATH: `${process.env.PATH}:/usr/sbin` },
  })
  const access = { url: urlOf({ address, port }), tls: { authorityPem: authorityPem(authority), ...own } }
  await waitUntilListening(child, { address, port, tls: access.tls }).catch(async (error: unknown) => {
    await child.stop('SIGTERM')
    throw error
  })
  return {
    url: access.url,
    port,
    access,
    deny: names => {
      writeFileSync(path('acl'), accessList + denied(names))
      // It reads its lists again, for those who are connected too.
      child.process.kill('SIGHUP')
    },
    close: () => child.stop('SIGTERM'),
    ended: child.ended,
  }
}

const urlOf = ({ address, port }: { address: string; port: number }): string =>
  `mqtts://${address.includes(':') ? `[${address}]` : address}:${port}`

async function keyed(
  authority: AuthoritySecrets,
  part: { commonName: string; use: 'server' | 'client'; address: string | null; now: Date },
): Promise<{ keyPem: string; certificatePem: string }> {
  const { publicKey, privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const request = {
    commonName: part.commonName,
    use: part.use,
    publicKey: new Uint8Array(publicKey.export({ type: 'spki', format: 'der' })),
    names: part.address === null ? [] : [{ kind: 'ip' as const, value: part.address }],
    notAfter: new Date(part.now.getTime() + certificateDays * 86_400_000),
  }
  return {
    keyPem: privateKey.export({ type: 'pkcs8', format: 'pem' }).toString(),
    certificatePem: await issueCertificate(authority, request, part.now),
  }
}

function configuration({
  path,
  address,
  port,
}: {
  path: (name: string) => string
  address: string
  port: number
}): string {
  return `per_listener_settings false
listener ${port} ${address}
cafile ${path('ca.pem')}
certfile ${path('server.pem')}
keyfile ${path('server-key.pem')}
tls_version tlsv1.3
require_certificate true
use_identity_as_username true
allow_anonymous false
acl_file ${path('acl')}
max_packet_size ${packetBytesMax}
set_tcp_nodelay true
max_queued_messages 1000
max_queued_bytes ${queuedBytesMax}
max_inflight_messages 100
persistence true
persistence_location ${path('data')}/
autosave_interval 60
log_dest stderr
log_type error
log_type warning
`
}

/** The broker of a control plane that was killed is told to end by the kernel, and takes a moment. */
async function waitUntilFree(at: { address: string; port: number }): Promise<void> {
  const until = Date.now() + startLimitMs
  while (await isListening(at)) {
    if (Date.now() > until) throw new Error(`port ${at.port} of ${at.address} is in use by another program`)
    await new Promise(resolve => setTimeout(resolve, 50))
  }
}

function isListening(at: { address: string; port: number }): Promise<boolean> {
  return new Promise(resolve => {
    const socket = connect({ host: at.address, port: at.port }, () => {
      socket.destroy()
      resolve(true)
    })
    socket.once('error', () => resolve(false))
  })
}

/** By our authority's certificate: who was faster at this port is another program. */
async function waitUntilListening(
  child: Child,
  { address, port, tls }: { address: string; port: number; tls: NonNullable<BrokerAccess['tls']> },
): Promise<void> {
  const until = Date.now() + startLimitMs
  while (Date.now() < until) {
    if (child.hasEnded()) throw new Error(whyNotStarted(child.lastWords()))
    if (await isOurs({ host: address, port, ca: tls.authorityPem, cert: tls.certificatePem, key: tls.keyPem })) return
    await new Promise(resolve => setTimeout(resolve, 30))
  }
  throw new Error(`Mosquitto did not listen within ${startLimitMs / 1000} s: ${child.lastWords()}`)
}

const whyNotStarted = (said: string): string =>
  /failed to execute mosquitto/.test(said)
    ? 'this machine has no Mosquitto: install Debian’s mosquitto, or set MQTT_URL (to "none" where everything is to travel by HTTPS)'
    : `Mosquitto did not start: ${said}`

function isOurs(at: ConnectionOptions): Promise<boolean> {
  return new Promise(resolve => {
    const socket = connectTls({ ...at, timeout: answerLimitMs }, () => end(true))
    const end = (ours: boolean): void => {
      socket.destroy()
      resolve(ours)
    }
    socket.once('error', () => end(false))
    socket.once('timeout', () => end(false))
  })
}
const answerLimitMs = 1_000
