/** MQTT clients of a lab's broker: fleet tooling with its own certificate, and an attacker who has the broker's own. */

import { generateKeyPairSync } from 'node:crypto'
import { connect } from 'node:net'
import { join } from 'node:path'
import { connect as connectTls } from 'node:tls'
import { MqttClient } from 'mqtt'
import { authorityPem, issueCertificate } from '../../control-plane/auth/x509.ts'
import { localAuthority } from '../../control-plane/entry/local/secrets.ts'
import { GATEWAY } from '../../infra/lab/addresses.ts'
import { brokerSocket, controlPlaneDir, type LabControlPlane } from '../../infra/lab/control-plane.ts'

export interface Credentials {
  key: string
  cert: string
  ca: string
}

export async function connectBroker(lab: string, part: { clientId: string; as: Credentials }): Promise<MqttClient> {
  const stream = () => connectTls({ socket: connect(brokerSocket(lab)), host: GATEWAY.v4, ...part.as })
  const client = new MqttClient(stream, {
    clientId: part.clientId,
    protocolVersion: 5,
    clean: true,
    reconnectPeriod: 0,
  })
  client.on('error', () => {})
  await new Promise<void>((resolve, reject) => {
    client.once('connect', () => resolve())
    client.once('close', () => reject(new Error('the broker closed the connection')))
  })
  return client
}

/** As fleet tooling gets it. */
export async function toolCredentials({ api }: LabControlPlane): Promise<Credentials> {
  const { publicKey, privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const spki = publicKey.export({ type: 'spki', format: 'der' }).toString('base64url')
  const { body } = await api.toolCertificate({ body: { publicKey: spki } })
  const key = privateKey.export({ type: 'pkcs8', format: 'pem' }).toString()
  return { key, cert: body.certificate, ca: body.authority }
}

/** Whoever owns the broker may do everything there. */
export async function ownerCredentials(lab: string): Promise<Credentials> {
  const authority = await localAuthority(join(controlPlaneDir(lab), 'keys'))
  const { publicKey, privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const now = new Date()
  const cert = await issueCertificate(
    authority,
    {
      commonName: 'control-plane',
      use: 'client',
      publicKey: new Uint8Array(publicKey.export({ type: 'spki', format: 'der' })),
      names: [],
      notAfter: new Date(now.getTime() + 3_600_000),
    },
    now,
  )
  const key = privateKey.export({ type: 'pkcs8', format: 'pem' }).toString()
  return { key, cert, ca: authorityPem(authority) }
}
