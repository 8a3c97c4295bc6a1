import { chmodSync, chownSync, copyFileSync, existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { type ClusterSpec, configFile, hbaFile, identFile, otherNode, replicationRole, standbyName } from './cluster.ts'

/**
 * The server's configuration, written by the agent alone and kept outside the data directory: a base backup or a rewind
 * brings the other host's files along, and those must not count.
 */
export interface Wanted {
  syncNames: 'set' | 'empty'
  /** The primary this cluster follows; null: none. */
  source: { host: string; port: number } | null
}

export function writeConfig(spec: ClusterSpec, wanted: Wanted): void {
  mkdirSync(spec.confDir, { recursive: true, mode: 0o750 })
  own(spec, spec.confDir, 0o750)
  const tls = copyKeys(spec)
  put(spec, configFile(spec), settings(spec, wanted, tls))
  put(
    spec,
    identFile(spec),
    `understudy root ${superuser}\nunderstudy ${spec.user.name} ${superuser}\npair /^(.*)$ ${replicationRole}\n`,
  )
  put(spec, hbaFile(spec), accessRules(spec))
}

/** The bootstrap superuser of a cluster that initdb makes here; an adopted one must have it too. */
export const superuser = 'postgres'

function settings(spec: ClusterSpec, wanted: Wanted, tls: ClusterSpec['tls']): string {
  const own: [string, string | number][] = [
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
    ['synchronous_commit', 'on'],
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
  const lines = own.map(([name, value]) => `${name} = ${quote(String(value))}`)
  const before = spec.mode === 'adopt' ? adoptedSettings(spec) : []
  return ['# Written by Understudy at each start; changes here are lost.', ...before, ...lines, ''].join('\n')
}

/** What the cluster was configured with before it was adopted comes first, so that our own settings override it. */
function adoptedSettings(spec: ClusterSpec): string[] {
  const inData = join(spec.dataDir, 'postgresql.conf')
  return existsSync(inData) ? [`include_if_exists = ${quote(inData)}`] : []
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
function copyKeys(spec: ClusterSpec): ClusterSpec['tls'] {
  const to = keyPaths(spec)
  for (const name of ['certFile', 'keyFile', 'caFile'] as const) {
    copyFileSync(spec.tls[name], to[name])
    own(spec, to[name], 0o600)
  }
  return to
}

/** First match wins (manual, 21.1): the agent by its socket, the peer by its certificate, then the cluster's own rules. */
function accessRules(spec: ClusterSpec): string {
  const rules = [`local all all peer map=understudy`]
  for (const address of spec.peerAddresses) {
    const mask = address.includes(':') ? 128 : 32
    rules.push(`hostssl replication ${replicationRole} ${address}/${mask} cert map=pair`)
    rules.push(`hostssl postgres ${replicationRole} ${address}/${mask} cert map=pair`)
  }
  rules.push(`host all ${replicationRole} all reject`, `host replication all all reject`)
  const theirs = join(spec.dataDir, 'pg_hba.conf')
  const rest = existsSync(theirs) ? readFileSync(theirs, 'utf8') : ''
  return `# Written by Understudy at each start; the cluster's own rules follow.\n${rules.join('\n')}\n${rest}\n`
}

/** The rules of a cluster made here: clients by password, nobody else. */
export const newClusterAccess = `host all all all scram-sha-256\n`

function put(spec: ClusterSpec, path: string, text: string): void {
  writeFileSync(path, text, { mode: 0o640 })
  own(spec, path, 0o640)
}

export function own(spec: ClusterSpec, path: string, mode: number): void {
  chownSync(path, spec.user.uid, spec.user.gid)
  chmodSync(path, mode)
}

const quote = (value: string): string => `'${value.replaceAll("'", "''")}'`

/** Whether the server starts as a standby (manual, 27.2.4). */
export function setStandbySignal(spec: ClusterSpec, standby: 'standby' | 'primary'): void {
  const signal = join(spec.dataDir, 'standby.signal')
  if (standby === 'primary') {
    rmSync(signal, { force: true })
    return
  }
  writeFileSync(signal, '')
  own(spec, signal, 0o600)
}
