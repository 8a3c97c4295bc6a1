import { isAbsolute } from 'node:path'
import { z } from 'zod'
import { verbNames } from '../shared/contract/documents.ts'
import { incarnation } from '../shared/contract/protocol.ts'
import { contains, isSpecial, parseAddress, parsePrefix, sameAddress } from '../shared/ip.ts'
import { type ConfigFault, explainIssues, showFault } from './config-faults.ts'
import { serviceSchema } from './config-services.ts'
import { syncFaults } from './config-sync.ts'
import { syncSchema } from './files/settings.ts'

/**
 * The one configuration file of a host: strict JSON, checked as a whole before anything is touched.
 * An unknown key is an error, because a misspelt safety setting must not be ignored.
 * What only the host can tell (interfaces, subnets, programs, the data directory) is checked by `preflight`.
 */

/** No file a person writes comes near; a path to a device or a log would. */
export const configBytesMax = 256 * 1024
/** Heartbeats go out on every path: more than this is a mistake. */
const pathsMax = 4
const vipsMax = 32
const portsMax = 32
const servicesMax = 64

const text = z.string().min(1, 'must not be empty; write a value or remove the key')
const absolutePath = text
  .refine(isAbsolute, 'must be an absolute path; begin it with "/"')
  .refine(path => !/\p{Cc}/u.test(path), 'must hold no newline or other control character; rename the folder')
const port = z.int('must be a whole number from 1 to 65535').min(1, portRule()).max(65_535, portRule())
const name = z
  .string()
  .regex(
    /^[a-z][a-z0-9-]{0,31}$/,
    'must be 1 to 32 of a-z, 0-9 and "-", beginning with a letter; write it like "orders"',
  )
const interfaceName = z
  .string()
  .regex(/^[^\s/:]{1,15}$/, 'must be the name of a network interface; `ip -br link` lists them')
const address = z
  .string()
  .refine(
    value => parseAddress(value) !== null,
    'must be an IPv4 or IPv6 address without a prefix; write it like "10.0.0.1"',
  )
  .refine(
    value => !special(value),
    'must be a unicast address that the other host can reach; loopback, link-local and multicast are not',
  )
const prefix = z
  .string()
  .refine(
    value => parsePrefix(value) !== null,
    'must be an IPv4 or IPv6 address with the prefix length of its subnet; write it like "10.0.0.100/24"',
  )
  .refine(
    value => !special(value.split('/')[0] ?? ''),
    'must be a unicast address; loopback, link-local and multicast are not',
  )

const peerPathSchema = z.strictObject({ local: address, peer: address, port })

const witnessPlace = {
  url: z
    .string()
    .refine(
      isHttpsUrl,
      'must be an https URL without user, query or fragment; write it like "https://witness.example:7443"',
    ),
  /**
   * SHA-256 of the witness's certificate: the trust is in this value, not in a name or an authority. null: the system's
   * authorities vouch for it, as for a control plane on the internet.
   */
  fingerprint: z
    .string()
    .regex(
      /^[0-9a-f]{64}$/,
      'must be the SHA-256 of the certificate as 64 lower-case hex digits; `understudy witness` prints it',
    )
    .nullable(),
  /** A vote in the control plane's database: requests are signed by the key of the enrolment, which it knows. */
  hosted: z.boolean().default(false),
}
/** One that has admitted the pair, and the incarnation that it gave for it. */
const admittedWitness = z.strictObject({ ...witnessPlace, inc: incarnation })
const witnessSchema = z.strictObject({
  ...witnessPlace,
  /** null: the admission of the pair's set-up. `understudy change witness` and the control plane write it. */
  inc: incarnation.nullable().default(null),
  /** Takes its place when it was away for both hosts for `awayS`. */
  alternate: admittedWitness.nullable().default(null),
  awayS: z.int().min(10).max(86_400).default(600),
  /** Was replaced: asked for its vote until the pair has let it go. */
  former: admittedWitness.nullable().default(null),
})

const tlsFiles = z.strictObject({ certFile: absolutePath, keyFile: absolutePath, caFile: absolutePath })

const postgresSchema = z.strictObject({
  binDir: absolutePath,
  dataDir: absolutePath,
  /** Of the agent alone: the gate does not reach Unix sockets. */
  socketDir: absolutePath,
  port,
  listenAddresses: z
    .array(z.union([z.literal('*'), address]))
    .min(1)
    .default(['*']),
  /** The operating system's user that owns the data directory and runs the server: PostgreSQL refuses root. */
  user: text,
  /** initdb --wal-segsize; a smaller segment shortens a promotion. Only for a cluster that is made here. */
  walSegmentMb: z.literal([1, 2, 4, 8, 16, 32, 64]).default(1),
  mode: z.enum(['create', 'adopt']),
  /** The database superuser the agent works as, by the Unix socket; for "adopt" the one that the cluster was made with. */
  superuser: z
    .string()
    .regex(
      /^[a-zA-Z_][\w-]{0,62}$/,
      'must be the name of a role: letters, digits, "_" and "-"; write it like "postgres"',
    )
    .default('postgres'),
  /** "adopt": where the cluster is configured, if not in its data directory (Debian: below /etc/postgresql). */
  configFile: absolutePath.nullable().default(null),
  hbaFile: absolutePath.nullable().default(null),
  /** null: `pair init` makes a certificate authority of the pair and both certificates in stateDir. */
  tls: tlsFiles.nullable().default(null),
})

const limitsSchema = z.strictObject({
  /** max_slot_wal_keep_size: how much WAL a backup that is away may hold back. */
  slotWalMb: z.int().min(64).max(1_048_576).default(4096),
  /** Below this free space on the data volume: alarm, and no new role for this host. */
  freeDiskMb: z.int().min(16).max(1_048_576).default(512),
  /** The decisions kept on disk for `why` and `events`. */
  decisionsMb: z.int().min(1).max(1024).default(8),
  /** Evidence bundles of diverged data; the oldest acknowledged one goes first. */
  evidenceMb: z.int().min(16).max(1_048_576).default(4096),
})

const stopSchema = z.strictObject({
  /** SIGTERM while the host goes down: hand the service to the other host first. */
  onHostShutdown: z.enum(['handOff', 'leaveRunning']).default('handOff'),
  /** SIGTERM while systemd restarts the unit (also after an upgrade): what runs is adopted by the next agent. */
  onAgentRestart: z.enum(['handOff', 'leaveRunning']).default('leaveRunning'),
  /** Any other SIGTERM. Nobody promised to start an agent again, and what is left running would be shut within 10 s. */
  onAgentStop: z.enum(['handOff', 'leaveRunning']).default('handOff'),
})

/** An operation of the control plane waits eleven minutes, for the steps of a change and their way back as well. */
export const confirmSecondsMax = 300
/** The witness is asked each ten seconds in calm, and has to be heard after the change. */
const confirmSecondsLeast = 15

const networkSchema = z.strictObject({
  /**
   * A change of a vSwitch after which this host does not reach what it reached before within this time is taken back. Links
   * take some seconds to come up; behind a spanning tree or a slow LACP partner it is half a minute and more.
   */
  confirmSeconds: z.int().min(confirmSecondsLeast).max(confirmSecondsMax).default(30),
  /** Where Open vSwitch forwards: in the kernel, or in user space where the kernel has no such module. */
  ovsDatapath: z.enum(['system', 'netdev']).default('system'),
  /** In a converged deployment the hosts' networks and storage belong to their service cluster. */
  deployment: z.enum(['distributed', 'converged']).default('distributed'),
})

const controlSchema = z.strictObject({
  /** What nobody commands from afar: the control plane's commands of these verbs are refused, and told so. */
  refuse: z.array(z.enum(verbNames)).default([]),
  /** For a set-up from afar with a witness of one's own: what that witness asks of a new pair, as it keeps it. */
  witnessTokenFile: absolutePath.nullable().default(null),
})

export const configSchema = z.strictObject({
  pair: name,
  node: z.enum(['a', 'b']),
  profile: z.enum(['fast', 'default', 'conservative']).default('default'),
  stateDir: absolutePath,
  socket: absolutePath,
  pairKeyFile: absolutePath,
  hostKeyFile: absolutePath,
  peer: z.strictObject({ paths: z.array(peerPathSchema).min(1).max(pathsMax) }),
  vips: z.array(z.strictObject({ address: prefix, interface: interfaceName })).max(vipsMax),
  /** TCP ports that only the serving host may answer on, whatever the address. */
  protectedPorts: z.array(port).min(1).max(portsMax),
  witness: witnessSchema.nullable(),
  postgres: postgresSchema,
  /** Directory trees kept on both hosts; null: none. */
  sync: syncSchema.nullable().default(null),
  services: z.array(serviceSchema).max(servicesMax).default([]),
  uplink: z.strictObject({ interface: interfaceName, gateway: address }).nullable().default(null),
  bootIdPath: absolutePath.default('/proc/sys/kernel/random/boot_id'),
  /** A cgroup v2 directory the agent may make children in; null: found from /proc/self/cgroup. */
  cgroupParent: absolutePath.nullable().default(null),
  stop: stopSchema.prefault({}),
  network: networkSchema.prefault({}),
  /** Of a host that `understudy enrol` has made known to a control plane. */
  control: controlSchema.prefault({}),
  limits: limitsSchema.prefault({}),
})

export type Config = z.output<typeof configSchema>
export type ConfigInput = z.input<typeof configSchema>
export type PostgresConfig = Config['postgres']
export type VipConfig = Config['vips'][number]
export type PeerPath = Config['peer']['paths'][number]
export type WitnessConfig = NonNullable<Config['witness']>
export type WitnessPlace = Pick<WitnessConfig, 'url' | 'fingerprint' | 'hosted'>
export type AdmittedWitness = z.output<typeof admittedWitness>

/** The file is refused; `faults` has every reason, `message` all of them as sentences. */
export class ConfigError extends Error {
  override name = 'ConfigError'
  readonly faults: readonly ConfigFault[]
  constructor(source: string, faults: readonly ConfigFault[]) {
    super(`${source} was refused, nothing was changed:\n${faults.map(fault => `  ${showFault(fault)}`).join('\n')}`)
    this.faults = faults
  }
}

/** @throws ConfigError. `source` names the file in messages. */
export function parseConfig(json: string, source: string): Config {
  const input = parseJson(json, source)
  const parsed = configSchema.safeParse(input)
  if (!parsed.success) throw new ConfigError(source, explainIssues(parsed.error.issues, input))
  const faults = crossFieldFaults(parsed.data)
  if (faults.length > 0) throw new ConfigError(source, faults)
  return parsed.data
}

/** @throws ConfigError */
export function parseJson(json: string, source: string): unknown {
  try {
    return JSON.parse(json)
  } catch (error) {
    throw new ConfigError(source, [fileFault(`is not JSON (${messageOf(error)})`, 'mend it at that place')])
  }
}

const fileFault = (rule: string, remedy: string): ConfigFault => ({ field: '', value: undefined, rule, remedy })
const messageOf = (error: unknown): string => (error instanceof Error ? error.message : String(error))

/** Rules between fields; each names both values, so that the reader sees which one to change. */
export function crossFieldFaults(config: Config): ConfigFault[] {
  const faults: ConfigFault[] = []
  const add = (field: string, value: unknown, rule: string, remedy: string): void => {
    faults.push({ field, value, rule, remedy })
  }
  for (const [index, path] of config.peer.paths.entries()) {
    const field = `peer.paths[${index}]`
    const local = parseAddress(path.local)!
    const peer = parseAddress(path.peer)!
    if (local.family !== peer.family) {
      add(field, `${path.local} to ${path.peer}`, 'joins an IPv4 with an IPv6 address', 'give both in one family')
    } else if (sameAddress(local, peer)) {
      add(field, path.peer, 'has the same address on both ends', "give the other host's address as peer")
    }
  }
  for (const [index, vip] of config.vips.entries()) {
    const field = `vips[${index}].address`
    const parsed = parsePrefix(vip.address)!
    if (isNetworkOrBroadcast(vip.address)) {
      add(field, vip.address, 'is the network or broadcast address of its subnet', 'choose an address between the two')
    }
    const others = config.vips.slice(0, index)
    if (others.some(other => sameAddress(parsePrefix(other.address)!, parsed))) {
      add(field, vip.address, 'is listed twice', 'remove one of them')
    }
    for (const [at, path] of config.peer.paths.entries()) {
      for (const end of ['local', 'peer'] as const) {
        if (!sameAddress(parsed, parseAddress(path[end])!)) continue
        add(
          field,
          vip.address,
          `is also peer.paths[${at}].${end}`,
          'a VIP moves between the hosts: choose an address that is neither',
        )
      }
    }
    if (config.uplink !== null && sameAddress(parsed, parseAddress(config.uplink.gateway)!)) {
      add(field, vip.address, 'is also uplink.gateway', 'choose another address for the VIP')
    }
  }
  for (const key of ['configFile', 'hbaFile'] as const) {
    const value = config.postgres[key]
    if (value === null || config.postgres.mode === 'adopt') continue
    add(
      `postgres.${key}`,
      value,
      'is given although postgres.mode is "create"',
      'remove it, or set the mode to "adopt"',
    )
  }
  if (!config.protectedPorts.includes(config.postgres.port)) {
    add(
      'protectedPorts',
      config.protectedPorts.join(', '),
      `does not contain postgres.port ${config.postgres.port}`,
      'add it: the gate protects the database only on the ports listed',
    )
  }
  for (const [index, path] of config.peer.paths.entries()) {
    if (!config.protectedPorts.includes(path.port)) continue
    add(
      `peer.paths[${index}].port`,
      path.port,
      'is a protected port',
      'heartbeats must pass a shut gate: choose another port',
    )
  }
  faults.push(...pathFaults(config), ...duplicateServices(config), ...syncFaults(config))
  return faults
}

function pathFaults(config: Config): ConfigFault[] {
  const faults: ConfigFault[] = []
  const { dataDir } = config.postgres
  if (inside(config.stateDir, dataDir)) {
    faults.push({
      field: 'stateDir',
      value: config.stateDir,
      rule: `lies inside postgres.dataDir ${dataDir}`,
      remedy: 'move it out: a rewind or a new base backup would overwrite the votes',
    })
  }
  // sun_path holds 108 bytes with its terminating zero, unix(7).
  const unixPathMax = 107
  for (const [field, value] of [
    ['socket', config.socket],
    ['postgres.socketDir', `${config.postgres.socketDir}/.s.PGSQL.${config.postgres.port}`],
  ] as const) {
    if (Buffer.byteLength(value) <= unixPathMax) continue
    faults.push({
      field,
      value,
      rule: `is longer than the ${unixPathMax} bytes of a Unix socket's path`,
      remedy: 'choose a shorter one',
    })
  }
  return faults
}

function duplicateServices(config: Config): ConfigFault[] {
  const names = config.services.map(service => service.name)
  return names.flatMap((value, index) =>
    names.indexOf(value) === index
      ? []
      : [
          {
            field: `services[${index}].name`,
            value,
            rule: 'is used twice',
            remedy: 'give each service a name of its own',
          },
        ],
  )
}

/** IPv4 only, and only where the subnet has such addresses (RFC 3021: a /31 has none). */
function isNetworkOrBroadcast(vip: string): boolean {
  const { family, length, value } = parsePrefix(vip)!
  if (family === 6 || length > 30) return false
  const hosts = (1n << BigInt(32 - length)) - 1n
  return (value & hosts) === 0n || (value & hosts) === hosts
}

/** Whether a VIP lies in the subnet an interface address shows. */
export function vipInSubnet(vip: VipConfig, interfaceAddress: string): boolean {
  const subnet = parsePrefix(interfaceAddress)
  return subnet !== null && contains(subnet, parsePrefix(vip.address)!)
}

const inside = (path: string, folder: string): boolean => `${path}/`.startsWith(`${folder.replace(/\/+$/, '')}/`)
function portRule(): string {
  return 'must be a port from 1 to 65535'
}
function special(value: string): boolean {
  const parsed = parseAddress(value)
  return parsed !== null && isSpecial(parsed)
}
function isHttpsUrl(value: string): boolean {
  const url = URL.canParse(value) ? new URL(value) : null
  return (
    url !== null &&
    url.protocol === 'https:' &&
    url.username === '' &&
    url.password === '' &&
    url.search === '' &&
    url.hash === ''
  )
}
