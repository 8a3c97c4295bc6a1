import { z } from 'zod'
import { contains, isSpecial, parseAddress, parsePrefix, sameAddress } from '../../ip.ts'
import { toolKeysMax, trustedTool } from '../documents.ts'
import { id, resourceName, slot } from './common.ts'
import { syncPartition } from './sync-partition.ts'

/** What is wanted of a pair. Roles are no part of it: who is primary is decided by the hosts and their witness. */

const vipsMax = 32
const portsMax = 32

const unicastPrefix = z
  .string()
  .max(50)
  .refine(
    text => parsePrefix(text) !== null,
    'must be an address with its prefix length; write it like "10.0.0.100/24"',
  )
  .refine(text => {
    const parsed = parsePrefix(text)
    return parsed === null || !isSpecial(parsed)
  }, 'must be a unicast address; loopback, link-local and multicast are not')
export const unicastAddress = z
  .string()
  .max(45)
  .refine(text => parseAddress(text) !== null, 'must be an IPv4 or IPv6 address without a prefix')
  .refine(text => {
    const parsed = parseAddress(text)
    return parsed === null || !isSpecial(parsed)
  }, 'must be a unicast address that the other host can reach')
const port = z.int().min(1).max(65_535)

export const virtualAddress = z
  .strictObject({
    address: unicastPrefix,
    interface: z
      .string()
      .regex(/^[^\s/:]{1,15}$/, 'must be the name of a network interface or virtual switch')
      .describe('On both hosts'),
    network: z.enum(['management', 'service']).default('management'),
  })
  .meta({ id: 'VirtualAddress' })

const pingRefusal =
  'a ping target cannot arbitrate: both hosts may reach it while they cannot reach each other, and both would serve. Use the hosted witness, or an own one on a third machine'
export const witnessChoice = z
  .discriminatedUnion(
    'kind',
    [
      z.strictObject({ kind: z.literal('hosted').describe('A vote in this control plane’s database') }),
      z.strictObject({
        kind: z.literal('own').describe('The witness process on a third machine'),
        url: z
          .url({
            protocol: /^https$/,
            error: 'must be an address that begins with https://, such as https://10.0.0.9:7443',
          })
          .max(200),
        fingerprint: z.string().regex(/^[0-9a-f]{64}$/, 'must be the SHA-256 of the certificate as 64 hex digits'),
      }),
      z.strictObject({ kind: z.literal('none').describe('No automatic takeover: the pair is always pinned') }),
      z.strictObject({ kind: z.literal('ping'), addresses: z.array(z.string()).optional() }),
    ],
    { error: issue => (issue.code === 'invalid_union' ? 'must be "hosted", "own" or "none"' : undefined) },
  )
  .refine(it => it.kind !== 'ping', { error: pingRefusal, path: ['kind'] })
  .meta({ id: 'Witness' })

export const arbitration = z
  .strictObject({
    witness: witnessChoice.default({ kind: 'hosted' }),
    alternate: witnessChoice
      .nullable()
      .default(null)
      .describe('Admitted by the pair after the first was away for long'),
  })
  .meta({ id: 'Arbitration' })

const service = z
  .strictObject({
    name: resourceName,
    unit: z.string().regex(/^[A-Za-z0-9@._-]{1,200}\.service$/, 'must be a systemd service unit'),
  })
  .meta({ id: 'Service' })
const hostPlace = z.strictObject({ addresses: z.array(unicastAddress).min(1).max(4) }).meta({ id: 'HostPlace' })

const wanted = {
  mode: z.enum(['converged', 'distributed']).describe('converged: network and storage belong to the hosts’ cluster'),
  ipFamily: z.enum(['ipv4', 'ipv6']),
  profile: z.enum(['fast', 'default', 'conservative']).default('default'),
  vips: z.array(virtualAddress).max(vipsMax).default([]),
  arbitration: arbitration.prefault({}),
  witnessAdmission: id
    .nullable()
    .default(null)
    .describe('Of the newest admission of the witness that was asked for; set by that operation alone'),
  keyChange: id.nullable().default(null).describe('Of the newest change of keys; set by that operation alone'),
  syncPartition: syncPartition.nullable().default(null),
  services: z.array(service).max(64).default([]),
  protectedPorts: z.array(port).min(1).max(portsMax).default([5432]),
  hosts: z.strictObject({ a: hostPlace, b: hostPlace }),
  peerPort: port.default(7400),
}

export const pairSettings = z.strictObject(wanted).superRefine(rules).meta({ id: 'PairSettings' })
export type PairSettings = z.output<typeof pairSettings>
/** Of a set-up: what operations alone set is no field of it. */
export const settingsOfSetUp = z
  .strictObject(wanted)
  .omit({ witnessAdmission: true, keyChange: true })
  .superRefine(rules)
  .meta({ id: 'SettingsOfSetUp' })
/** RFC 7396 in effect: a field that is given replaces the field; the result is checked as a whole. */
export const pairSettingsPatch = z.strictObject({
  mode: wanted.mode.optional(),
  ipFamily: wanted.ipFamily.optional(),
  profile: wanted.profile.unwrap().optional(),
  vips: wanted.vips.unwrap().optional(),
  arbitration: arbitration.optional(),
  syncPartition: syncPartition.nullable().optional(),
  services: wanted.services.unwrap().optional(),
  protectedPorts: wanted.protectedPorts.unwrap().optional(),
  hosts: wanted.hosts.optional(),
  peerPort: port.optional(),
})

/** Rules between fields; each names the field that is to be changed. */
function rules(
  settings: Omit<z.output<z.ZodObject<typeof wanted>>, 'witnessAdmission' | 'keyChange'>,
  context: z.RefinementCtx,
): void {
  const fault = (path: (string | number)[], message: string): void => {
    context.addIssue({ code: 'custom', path, message, params: { rule: 'between_fields' } })
  }
  const family = settings.ipFamily === 'ipv4' ? 4 : 6
  const ends = (['a', 'b'] as const).flatMap(end => settings.hosts[end].addresses.map(text => ({ end, text })))
  for (const { end, text } of ends) {
    if (parseAddress(text)?.family !== family)
      fault(['hosts', end, 'addresses'], `${text} is not of the planned family ${settings.ipFamily}`)
  }
  if (ends.some((one, at) => ends.slice(0, at).some(other => sameText(one.text, other.text))))
    fault(['hosts'], 'the hosts have an address in common, or one is listed twice')
  if (settings.hosts.a.addresses.length !== settings.hosts.b.addresses.length)
    fault(['hosts'], 'each path needs an address on both hosts: the lists are of different length')
  for (const [index, vip] of settings.vips.entries()) {
    const parsed = parsePrefix(vip.address)
    if (parsed === null) continue
    if (settings.vips.slice(0, index).some(other => sameText(bare(other.address), bare(vip.address))))
      fault(['vips', index, 'address'], `${vip.address} is listed twice`)
    if (ends.some(({ text }) => sameText(text, bare(vip.address))))
      fault(['vips', index, 'address'], `${vip.address} is the address of a host; a virtual address is neither’s`)
    if (vip.network === 'management' && parsed.family !== family)
      fault(['vips', index, 'address'], `${vip.address} is not of the planned family ${settings.ipFamily}`)
    if (vip.network === 'management' && !ends.some(({ text }) => contains(parsed, parseAddress(text)!)))
      fault(
        ['vips', index, 'address'],
        `${vip.address} lies in the subnet of no host: clients of it would not be reached`,
      )
  }
  if (settings.protectedPorts.includes(settings.peerPort))
    fault(['peerPort'], `${settings.peerPort} is a protected port: heartbeats must pass a shut gate`)
}

const bare = (prefix: string): string => prefix.split('/')[0] ?? ''
function sameText(one: string, other: string): boolean {
  const [left, right] = [parseAddress(one), parseAddress(other)]
  return left !== null && right !== null && sameAddress(left, right)
}

/** The pair as each of its hosts is told. */
export const desiredDocument = z
  .object({
    v: z.literal(1),
    organisation: id,
    host: id,
    generation: z.int().min(1),
    issuedAt: z.iso.datetime(),
    pair: z
      .object({
        id,
        name: resourceName,
        node: slot,
        settings: pairSettings,
        peer: z.object({ host: id, name: resourceName, publicKey: z.string(), sealingKey: z.string() }),
        /** Where the votes of this pair are asked for when its witness is the hosted one; null: not over TLS. */
        hostedWitness: z
          .object({
            url: z.url({ protocol: /^https$/ }),
            /** SHA-256 of its certificate, hex; null: public authorities vouch for it. */
            fingerprint: z.string().nullable(),
          })
          .nullable()
          .default(null),
      })
      .nullable(),
    tools: z
      .array(trustedTool)
      .max(toolKeysMax)
      .default([])
      .describe('Keys of the organisation’s own tooling whose commands this host obeys'),
  })
  .meta({ id: 'DesiredDocument' })
export type DesiredDocument = z.output<typeof desiredDocument>
