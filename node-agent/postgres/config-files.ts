import { chmod, chown, copyFile, readFile, rename, rm, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { otherNode } from '../../shared/protocol/nodes.ts'
import { makeFolder } from '../folders.ts'
import { finishKeyAndCertificate } from '../keys/certificates.ts'
import { type ClusterSpec, configFile, exists, hbaFile, identFile, replicationRole, standbyName } from './cluster.ts'

/**
 * The server's configuration, written by the agent alone and kept outside the data directory: a base backup or a rewind
 * brings the other host's files along, and those must not count.
 */
export interface Wanted {
  syncNames: 'set' | 'empty'
  /** The primary this cluster follows; null: none. */
  source: { host: string; port: number } | null
}

export async function writeConfig(spec: ClusterSpec, wanted: Wanted): Promise<void> {
  makeFolder(spec.confDir, 0o750)
  await own(spec, spec.confDir, 0o750)
  await copyKeys(spec)
  await put(spec, configFile(spec), await settings(spec, wanted))
  await put(
    spec,
    identFile(spec),
    `understudy root ${spec.superuser}\nunderstudy ${spec.user.name} ${spec.superuser}\npair /^(.*)$ ${replicationRole}\n`,
  )
  await put(spec, hbaFile(spec), await accessRules(spec))
}

async function settings(spec: ClusterSpec, wanted: Wanted): Promise<string> {
  const lines = ownSettings(spec, wanted).map(([name, value]) => `${name} = ${quote(String(value))}`)
  const before = await ownersSettings(spec)
  return ['# Written by Understudy at each start; changes here are lost.', ...before, ...lines, ''].join('\n')
}

function ownSettings(spec: ClusterSpec, wanted: Wanted): [string, string | number][] {
  const tls = keyPaths(spec)
  return [
    ['data_directory', spec.dataDir],
    ['hba_file', hbaFile(spec)],
    ['ident_file', identFile(spec)],
    ['port', spec.port],
    ['listen_addresses', spec.listenAddresses.join(',')],
    ['unix_socket_directories', spec.socketDir],
    ['unix_socket_permissions', '0700'],
    ['wal_level', 'replica'],
    ['max_wal_senders', 10],
    ['max_replication_slots', 10],
    ['hot_standby', 'on'],
    ['superuser_reserved_connections', 5],
    // Only the agent starts PostgreSQL: a backend's crash is a failover or a restart it decided.
    ['restart_after_crash', 'off'],
    ['recovery_target_timeline', 'latest'],
    ['recovery_init_sync_method', 'syncfs'],
    ['wal_retrieve_retry_interval', '100ms'],
    ['wal_receiver_status_interval', '1s'],
    // The heartbeat decides long before; these clean up what is left of a broken connection.
    ['wal_sender_timeout', '5s'],
    ['wal_receiver_timeout', '5s'],
    ['max_slot_wal_keep_size', `${spec.slotWalMb}MB`],
    ['wal_keep_size', '64MB'],
    // An adopted cluster may have no checksums; a rewind needs one or the other.
    ['wal_log_hints', 'on'],
    ['synchronous_commit', 'on'],
    // What an acknowledged write rests on is not left to whoever configured the cluster before.
    ['fsync', 'on'],
    ['full_page_writes', 'on'],
    ['data_sync_retry', 'off'],
    ['synchronous_standby_names', wanted.syncNames === 'set' ? standbyName(otherNode(spec.node)) : ''],
    ['primary_conninfo', wanted.source === null ? '' : connectionString(spec, wanted.source)],
    ['primary_slot_name', wanted.source === null ? '' : standbyName(spec.node)],
    ['ssl', 'on'],
    ['ssl_cert_file', tls.certFile],
    ['ssl_key_file', tls.keyFile],
    ['ssl_ca_file', tls.caFile],
    ['tcp_keepalives_idle', 5],
    ['tcp_keepalives_interval', 1],
    ['tcp_keepalives_count', 3],
    ['client_connection_check_interval', '1s'],
    ['logging_collector', 'off'],
    ['log_min_messages', 'warning'],
    ['lc_messages', 'C'],
  ]
}

/** The owner's settings come first, so that our own override them; they travel with the data directory. */
async function ownersSettings(spec: ClusterSpec): Promise<string[]> {
  const inData = join(spec.dataDir, 'postgresql.conf')
  return (await exists(inData)) ? [`include_if_exists = ${quote(inData)}`] : []
}

/** A connection of this host to the other one's database, by the pair's certificate. */
export function connectionString(spec: ClusterSpec, to: { host: string; port: number; database?: string }): string {
  const tls = keyPaths(spec)
  const parts = {
    host: to.host,
    port: to.port,
    user: replicationRole,
    ...(to.database !== undefined && { dbname: to.database }),
    application_name: standbyName(spec.node),
    sslmode: 'verify-ca',
    sslcert: tls.certFile,
    sslkey: tls.keyFile,
    sslrootcert: tls.caFile,
    connect_timeout: 3,
    keepalives_idle: 2,
    keepalives_interval: 1,
    keepalives_count: 3,
    tcp_user_timeout: 5000,
  }
  return Object.entries(parts)
    .map(([name, value]) => `${name}=${value}`)
    .join(' ')
}

const keyPaths = (spec: ClusterSpec): ClusterSpec['tls'] => ({
  certFile: join(spec.confDir, 'server.crt'),
  keyFile: join(spec.confDir, 'server.key'),
  caFile: join(spec.confDir, 'ca.crt'),
})

/** The server refuses a key that is not its own user's or root's with the right mode: it gets copies of its own. */
async function copyKeys(spec: ClusterSpec): Promise<void> {
  const to = keyPaths(spec)
  await finishKeyAndCertificate({ key: spec.tls.keyFile, certificate: spec.tls.certFile })
  for (const name of ['certFile', 'keyFile', 'caFile'] as const) {
    await copyFile(spec.tls[name], to[name])
    await own(spec, to[name], 0o600)
  }
}

/**
 * Under a server that runs: what the agent before this one wrote for other addresses or keys of the pair. Whatever else is
 * in these files is left for the next start.
 * @returns whether the server has to read them again
 */
export async function refreshAccess(
  spec: ClusterSpec,
  sources: readonly { host: string; port: number }[],
): Promise<boolean> {
  const to = keyPaths(spec)
  const pairs = (['certFile', 'keyFile', 'caFile'] as const).map(name => [spec.tls[name], to[name]] as const)
  const differ = await Promise.all(pairs.map(async ([from, copy]) => (await textOf(from)) !== (await textOf(copy))))
  const keys = differ.includes(true)
  if (keys) await copyKeys(spec)
  const rules = await accessRules(spec)
  const access = (await textOf(hbaFile(spec))) !== rules
  if (access) await put(spec, hbaFile(spec), rules)
  const text = await textOf(configFile(spec))
  const next = withSource(text, { spec, sources })
  if (next !== text) await put(spec, configFile(spec), next)
  return keys || access || next !== text
}

const textOf = async (path: string): Promise<string> => ((await exists(path)) ? readFile(path, 'utf8') : '')

/** A standby whose primary has none of the addresses any more that it streams from gets one of those that it has. */
function withSource(text: string, part: { spec: ClusterSpec; sources: readonly { host: string; port: number }[] }) {
  const { spec, sources } = part
  const [first] = sources
  return text.replace(/^primary_conninfo = '(host=(\S+) .*)'$/m, (line, _all, host: string) =>
    first === undefined || sources.some(source => source.host === host)
      ? line
      : `primary_conninfo = ${quote(connectionString(spec, first))}`,
  )
}

/** First match wins (manual, 21.1): the agent by its socket, the peer by its certificate, then the cluster's own rules. */
async function accessRules(spec: ClusterSpec): Promise<string> {
  const rules = [`local all all peer map=understudy`]
  for (const address of spec.peerAddresses) {
    const mask = address.includes(':') ? 128 : 32
    rules.push(`hostssl replication ${replicationRole} ${address}/${mask} cert map=pair`)
    rules.push(`hostssl postgres ${replicationRole} ${address}/${mask} cert map=pair`)
  }
  rules.push(`host all ${replicationRole} all reject`, `host replication all all reject`)
  const theirs = join(spec.dataDir, 'pg_hba.conf')
  const rest = (await exists(theirs)) ? await readFile(theirs, 'utf8') : ''
  return `# Written by Understudy at each start; the cluster's own rules follow.\n${rules.join('\n')}\n${rest}\n`
}

/** The rules of a cluster made here: clients by password, nobody else. */
export const newClusterAccess = `host all all all scram-sha-256\n`

/** Replaced as a whole: a reload never reads half of it. */
async function put(spec: ClusterSpec, path: string, text: string): Promise<void> {
  await writeFile(`${path}.new`, text, { mode: 0o640 })
  await own(spec, `${path}.new`, 0o640)
  await rename(`${path}.new`, path)
}

export async function own(spec: ClusterSpec, path: string, mode: number): Promise<void> {
  await chown(path, spec.user.uid, spec.user.gid)
  await chmod(path, mode)
}

/**
 * A folder of PostgreSQL's user. Those above it that are missing are made so that this user gets through: the umask of the
 * agent's unit lets nobody through, and the user would be refused at its own folder.
 */
export async function makeOwnFolder(spec: ClusterSpec, path: string, mode: number): Promise<void> {
  const first = makeFolder(path)
  if (first !== undefined)
    for (let above = dirname(path); above.length >= first.length; above = dirname(above)) await chmod(above, 0o755)
  await own(spec, path, mode)
}

const quote = (value: string): string => `'${value.replaceAll("'", "''")}'`

const standbySignal = (spec: ClusterSpec): string => join(spec.dataDir, 'standby.signal')

/** Whether the server was started as a standby, and not promoted since: it removes the file at the end of its recovery. */
export const isStandby = (spec: ClusterSpec): Promise<boolean> => exists(standbySignal(spec))

/** Whether the server starts as a standby (manual, 27.2.4). */
export async function setStandbySignal(spec: ClusterSpec, standby: 'standby' | 'primary'): Promise<void> {
  const signal = standbySignal(spec)
  if (standby === 'primary') {
    await rm(signal, { force: true })
    return
  }
  await writeFile(signal, '')
  await own(spec, signal, 0o600)
}

/**
 * postgresql.auto.conf counts after every other file (manual, 20.1.2), so an ALTER SYSTEM could take synchronous
 * replication away. What is ours is removed from it before each start. @returns what was removed
 */
export async function removeOverrides(spec: ClusterSpec): Promise<string[]> {
  const path = join(spec.dataDir, 'postgresql.auto.conf')
  if (!(await exists(path))) return []
  const ours = new Set(ownSettings(spec, { syncNames: 'empty', source: null }).map(([name]) => name))
  const lines = (await readFile(path, 'utf8')).split('\n')
  const isOurs = (line: string): boolean => ours.has(/^\s*(\w+)/.exec(line)?.[1]?.toLowerCase() ?? '')
  const removed = lines.filter(isOurs)
  if (removed.length === 0) return []
  await writeFile(`${path}.new`, lines.filter(line => !isOurs(line)).join('\n'), { mode: 0o600 })
  await own(spec, `${path}.new`, 0o600)
  await rename(`${path}.new`, path)
  return removed.map(line => line.trim())
}
