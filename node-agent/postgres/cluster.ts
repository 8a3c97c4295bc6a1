import { access, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { DataNode } from '../../shared/protocol/types.ts'

/**
 * One PostgreSQL cluster of this host: where it lives and how it is reached.
 *
 * Nothing in this folder waits for a disk in the core's own thread: a volume that hangs would stop the heartbeats. File
 * operations are those of node:fs/promises; what is synchronous is /proc and the control groups, which have no disk.
 */
export interface ClusterSpec {
  node: DataNode
  binDir: string
  dataDir: string
  /** Of the agent alone: the gate does not reach Unix sockets. */
  socketDir: string
  port: number
  listenAddresses: readonly string[]
  /** The system user that owns and runs it. */
  user: { name: string; uid: number; gid: number }
  /** The database superuser the agent works as. */
  superuser: string
  /** Our configuration files, keys and the server's log: outside the data directory, so that no rewind replaces them. */
  confDir: string
  /** Bundles of what a diverged log held. */
  evidenceDir: string
  /** What the bundles may take together; see evidence-store.ts. */
  evidenceMb: number
  /** A cgroup v2 directory of the cluster alone, or null where there is none. */
  cgroup: string | null
  walSegmentMb: number
  mode: 'create' | 'adopt'
  /** Peer-link addresses of the other host: it alone may replicate. */
  peerAddresses: readonly string[]
  tls: { certFile: string; keyFile: string; caFile: string }
  /** max_slot_wal_keep_size. */
  slotWalMb: number
  /** A write that takes longer than this counts as a hang. */
  hangMs: number
}

export const bin = (spec: ClusterSpec, program: string): string => join(spec.binDir, program)
export const configFile = (spec: ClusterSpec): string => join(spec.confDir, 'postgresql.conf')
export const hbaFile = (spec: ClusterSpec): string => join(spec.confDir, 'pg_hba.conf')
export const identFile = (spec: ClusterSpec): string => join(spec.confDir, 'pg_ident.conf')
export const logFile = (spec: ClusterSpec): string => join(spec.confDir, 'postgresql.log')

/** The name by which each host's WAL receiver is known to the other, and its slot there. */
export const standbyName = (node: DataNode): string => `understudy_${node}`
/** Replicates, rewinds and looks; logs in with the pair's certificate only. */
export const replicationRole = 'understudy'

/** A cluster is whole once initdb, base backup or rewind has ended. */
export const unfinishedFile = (spec: ClusterSpec): string => join(spec.confDir, 'unfinished')
export const hasCluster = async (spec: ClusterSpec): Promise<boolean> =>
  (await exists(join(spec.dataDir, 'PG_VERSION'))) && !(await exists(unfinishedFile(spec)))

/** The process id in postmaster.pid, whether or not it lives; null where there is none. */
export async function recordedPid(spec: ClusterSpec): Promise<number | null> {
  try {
    const text = await readFile(join(spec.dataDir, 'postmaster.pid'), 'utf8')
    const pid = Number.parseInt(text.split('\n')[0] ?? '', 10)
    return Number.isInteger(pid) && pid > 1 ? pid : null
  } catch {
    return null
  }
}

export const exists = (path: string): Promise<boolean> =>
  access(path).then(
    () => true,
    () => false,
  )
