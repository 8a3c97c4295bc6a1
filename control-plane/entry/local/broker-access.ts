import { readFileSync } from 'node:fs'
import type { BrokerAccess } from '../../broker/mqtt-client.ts'
import { mqttUrlOf } from '../environment.ts'

/**
 * MQTT_URL: absent, a Mosquitto of our own; "none", no broker; else its address, with MQTT_CA_FILE, MQTT_CERT_FILE and
 * MQTT_KEY_FILE where it wants certificates. @throws with what is wrong
 */
export function brokerOf(env: NodeJS.ProcessEnv): BrokerAccess | null | 'none' {
  if (env.MQTT_URL === undefined || env.MQTT_URL === '') return null
  const url = mqttUrlOf(env.MQTT_URL)
  if (url === null) return 'none'
  const files = [env.MQTT_CA_FILE, env.MQTT_CERT_FILE, env.MQTT_KEY_FILE]
  if (files.every(one => one === undefined)) return { url, tls: null }
  const [ca, cert, key] = files
  if (ca === undefined || cert === undefined || key === undefined)
    throw new Error('MQTT_CA_FILE, MQTT_CERT_FILE and MQTT_KEY_FILE belong together')
  const read = (path: string): string => readFileSync(path, 'utf8')
  return { url, tls: { authorityPem: read(ca), certificatePem: read(cert), keyPem: read(key) } }
}
