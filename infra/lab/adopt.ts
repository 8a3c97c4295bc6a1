/** A lab's pair, made by the command line, handed to a control plane: both hosts enrolled, the pair shown. */

import { readFileSync } from 'node:fs'
import { addressOf, DATABASE_PORT, HOSTS, type HostName, INTERFACE, LAN_PREFIX, VIP, WEB_PORT } from './addresses.ts'
import { enrolHosts, type LabControlPlane, startControlPlane } from './control-plane.ts'
import { agentPaths } from './product.ts'
import { untilEnded } from './remote-set-up.ts'

/** Both hosts only have to be heard. */
const ADOPT_LIMIT_MS = 60_000

export async function adoptLab(
  lab: string,
  say: (line: string) => void,
): Promise<LabControlPlane & { hosts: { [host in HostName]: string }; pair: string }> {
  say('the control plane starts, with a PostgreSQL and a Mosquitto of its own')
  const plane = await startControlPlane(lab)
  say('both hosts are enrolled')
  const hosts = await enrolHosts(lab, plane)
  const addresses = (host: HostName): string[] => [addressOf(host, 'peer').v4, addressOf(host, 'lan').v4]
  const { witness } = JSON.parse(readFileSync(agentPaths(lab, HOSTS[0] ?? 'a').config, 'utf8')) as {
    witness: { url: string; fingerprint: string }
  }
  const settings = {
    mode: 'distributed' as const,
    ipFamily: 'ipv4' as const,
    vips: [
      { address: `${VIP.v4}/${LAN_PREFIX.v4}`, interface: INTERFACE.lan },
      { address: `${VIP.v6}/${LAN_PREFIX.v6}`, interface: INTERFACE.lan, network: 'service' as const },
    ],
    protectedPorts: [DATABASE_PORT, WEB_PORT],
    hosts: { a: { addresses: addresses('a') }, b: { addresses: addresses('b') } },
    arbitration: { witness: { kind: 'own' as const, ...witness } },
  }
  const { body } = await plane.api.setUpPair({ body: { name: lab, hosts, settings, adopt: true } })
  const done = await untilEnded(plane, body.operation.id, ADOPT_LIMIT_MS)
  if (done.state !== 'succeeded') throw new Error(`the pair was not adopted: ${done.message}`)
  return { ...plane, hosts, pair: body.pair }
}
