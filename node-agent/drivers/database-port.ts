import { chownSync, existsSync, mkdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { timingOf } from '../../shared/protocol/timing.ts'
import type { DatabaseOp, DatabaseResult, DatabaseView } from '../../shared/protocol/types.ts'
import type { Config } from '../config.ts'
import { tlsPaths } from '../pair/keys.ts'
import type { DatabasePort } from '../ports.ts'
import { type ClusterSpec, hasCluster } from '../postgres/cluster.ts'
import { PostgresDriver } from '../postgres/driver.ts'
import { initialise, prepareRole } from '../postgres/initialise.ts'
import { lookUpUser } from '../users.ts'

/** A write or a new connection that takes longer than this counts as a hang; a busy machine forks slowly. */
const hangMinMs = 500

/** @throws with a sentence where the configured user does not exist. */
export async function clusterSpecOf(config: Config): Promise<ClusterSpec> {
  const { postgres, stateDir, peer, profile, limits, node } = config
  const user = await lookUpUser(postgres.user)
  if (user === null)
    throw new Error(
      `postgres.user ${JSON.stringify(postgres.user)} does not exist on this host: create it or name another`,
    )
  const { binDir, dataDir, socketDir, port, listenAddresses, walSegmentMb, mode } = postgres
  const tls = tlsPaths(config)
  return {
    ...{ node, binDir, dataDir, socketDir, port, listenAddresses, walSegmentMb, mode },
    user: { name: postgres.user, ...user },
    confDir: join(stateDir, 'postgres'),
    evidenceDir: join(stateDir, 'evidence'),
    cgroup: cgroupOf(config),
    peerAddresses: peer.paths.map(path => path.peer),
    tls: { certFile: tls.certificate, keyFile: tls.key, caFile: tls.authority },
    slotWalMb: limits.slotWalMb,
    hangMs: Math.max(hangMinMs, timingOf(profile).leaseMs / 2),
  }
}

/** Makes or adopts the cluster at set-up; what is there already is left alone. */
export async function prepareDatabase(config: Config, progress: (line: string) => void): Promise<void> {
  const spec = await clusterSpecOf(config)
  makeFolders(spec)
  if (!hasCluster(spec)) await initialise(spec, progress)
  else if (config.postgres.mode === 'adopt') await prepareRole(spec)
}

/** Root's folders would keep the server from its own socket. /run is empty after a boot. */
function makeFolders(spec: ClusterSpec): void {
  for (const folder of [spec.socketDir, spec.confDir]) {
    mkdirSync(folder, { recursive: true, mode: 0o750 })
    chownSync(folder, spec.user.uid, spec.user.gid)
  }
}

const cgroupMounts = ['/sys/fs/cgroup', '/sys/fs/cgroup/unified']

/** A cgroup of the cluster alone, so that all its processes can be killed at once; null where there is no cgroup v2. */
function cgroupOf(config: Config): string | null {
  const parent = config.cgroupParent ?? ownCgroup()
  return parent === null ? null : join(parent, `postgres-${config.pair}-${config.node}`)
}

/** Where systemd put this process; delegated to it by the unit. */
function ownCgroup(): string | null {
  const mount = cgroupMounts.find(path => existsSync(join(path, 'cgroup.controllers')))
  const line = readFileSync('/proc/self/cgroup', 'utf8')
    .split('\n')
    .find(text => text.startsWith('0::'))
  return mount === undefined || line === undefined ? null : join(mount, line.slice('0::'.length))
}

export class DatabaseDriver implements DatabasePort {
  readonly #driver: PostgresDriver
  readonly #spec: ClusterSpec

  static async open(config: Config, note: (why: string) => void): Promise<DatabaseDriver> {
    const spec = await clusterSpecOf(config)
    const peerDatabase = config.peer.paths.map(path => ({ host: path.peer, port: config.postgres.port }))
    return new DatabaseDriver(spec, new PostgresDriver({ spec, peerDatabase, progress: note }))
  }

  private constructor(spec: ClusterSpec, driver: PostgresDriver) {
    this.#spec = spec
    this.#driver = driver
  }

  adopt(): Promise<DatabaseView> {
    makeFolders(this.#spec)
    return this.#driver.adopt()
  }

  onView(tell: (view: DatabaseView) => void): void {
    this.#driver.onView(tell)
  }

  look(): void {
    this.#driver.look()
  }

  perform(op: DatabaseOp): Promise<DatabaseResult> {
    return this.#driver.perform(op)
  }

  cancelledWaits(): number {
    return this.#driver.cancelledWaits
  }

  detach(): Promise<void> {
    return this.#driver.detach()
  }
}
