import { chownSync, existsSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { timingOf } from '../../shared/protocol/timing.ts'
import type { DatabaseOp, DatabaseResult, DatabaseView } from '../../shared/protocol/types.ts'
import type { Config } from '../config.ts'
import { criticalMb, tightest } from '../disk/policy.ts'
import { volumePaths, volumesAt } from '../disk/space.ts'
import { evidenceDirOf } from '../evidence-store.ts'
import { makeFolder } from '../folders.ts'
import { finishKeyAndCertificate } from '../keys/certificates.ts'
import { flattenConfig } from '../pair/adopted-config.ts'
import { tlsPaths } from '../pair/keys.ts'
import type { CollectedEvidence, DatabasePort } from '../ports.ts'
import { type ClusterSpec, hasCluster } from '../postgres/cluster.ts'
import { own } from '../postgres/config-files.ts'
import { PostgresDriver } from '../postgres/driver.ts'
import { initialise, prepareRole } from '../postgres/initialise.ts'
import { within } from '../postgres/sql.ts'
import type { Pulse } from '../pulse.ts'
import { lookUpUser } from '../users.ts'

/** A write or a new connection that takes longer than this counts as a hang; a busy machine forks slowly. */
const hangMinMs = 500
/** statfs answers from memory, unless the device hangs. */
const lookLimitMs = 2000

/** @throws with a sentence where the configured user does not exist. */
export async function clusterSpecOf(config: Config): Promise<ClusterSpec> {
  const { postgres, stateDir, peer, profile, limits, node } = config
  const user = await lookUpUser(postgres.user)
  if (user === null)
    throw new Error(
      `postgres.user ${JSON.stringify(postgres.user)} does not exist on this host: create it or name another`,
    )
  const { binDir, dataDir, socketDir, port, listenAddresses, walSegmentMb, mode, superuser } = postgres
  const tls = tlsPaths(config)
  return {
    ...{ node, binDir, dataDir, socketDir, port, listenAddresses, walSegmentMb, mode, superuser },
    user: { name: postgres.user, ...user },
    confDir: join(stateDir, 'postgres'),
    evidenceDir: evidenceDirOf(stateDir),
    evidenceMb: limits.evidenceMb,
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
  if (!(await hasCluster(spec))) await initialise(spec, progress)
  else if (config.postgres.mode === 'adopt') {
    await bringConfig(config, spec)
    await prepareRole(spec)
  }
}

/** Into the data directory, once: from there it goes to the other host with the base backup. */
async function bringConfig(config: Config, spec: ClusterSpec): Promise<void> {
  const { configFile, hbaFile: accessFile, dataDir } = config.postgres
  for (const [name, from] of [
    ['postgresql.conf', configFile],
    ['pg_hba.conf', accessFile],
  ] as const) {
    const path = join(dataDir, name)
    if (from === null || existsSync(path)) continue
    const text = name === 'postgresql.conf' ? flattenConfig(from) : readFileSync(from, 'utf8')
    writeFileSync(path, `# Copied from ${from} when this cluster was adopted.\n${text}`, { mode: 0o600 })
    await own(spec, path, 0o600)
  }
}

/** Root's folders would keep the server from its own socket. /run is empty after a boot. */
function makeFolders(spec: ClusterSpec): void {
  for (const folder of [spec.socketDir, spec.confDir]) {
    makeFolder(folder, 0o750)
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
  readonly #config: Config
  readonly #driver: PostgresDriver
  readonly #spec: ClusterSpec

  static async open(
    config: Config,
    { note, pulse }: { note: (why: string) => void; pulse: Pulse },
  ): Promise<DatabaseDriver> {
    // Before the database and the file trees read them.
    await finishKeyAndCertificate(tlsPaths(config))
    const spec = await clusterSpecOf(config)
    const peerDatabase = config.peer.paths.map(path => ({ host: path.peer, port: config.postgres.port }))
    return new DatabaseDriver(config, spec, new PostgresDriver({ spec, peerDatabase, progress: note, pulse }))
  }

  private constructor(config: Config, spec: ClusterSpec, driver: PostgresDriver) {
    this.#config = config
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

  async perform(op: DatabaseOp): Promise<DatabaseResult> {
    const why = await this.#noRoomFor(op)
    return why === '' ? this.#driver.perform(op) : { ok: false, why, view: this.#driver.view }
  }

  /** A standby that is started on a full disk ends at once, again and again, and the primary waits for it each time. */
  async #noRoomFor({ op }: DatabaseOp): Promise<string> {
    if (op !== 'rejoin') return ''
    const { stateDir, postgres, limits } = this.#config
    const look = volumePaths({ dataDir: postgres.dataDir, stateDir }).then(volumesAt)
    const volumes = await within(lookLimitMs, 'a look at the free space', look).catch((error: Error) => error)
    // Tried again by the core, as whatever a disk fails in.
    if (volumes instanceof Error) return `${volumes.message}: look at the device and its cables`
    const least = tightest(volumes)
    const needed = criticalMb(limits.freeDiskMb)
    if (least === null || least.freeMb >= needed) return ''
    return `${least.path} has ${least.freeMb} MiB free, a standby is started from ${needed} MiB on: free space or enlarge it`
  }

  cancelledWaits(): number {
    return this.#driver.cancelledWaits
  }

  unprotectedCommits(): Promise<string[]> {
    return this.#driver.unprotectedCommits()
  }

  forgetPeer(): Promise<void> {
    return this.#driver.forgetPeer()
  }

  collectEvidence(): Promise<CollectedEvidence> {
    return this.#driver.collectEvidence()
  }

  endedFull(): boolean {
    return this.#driver.endedFull
  }

  detach(): Promise<void> {
    return this.#driver.detach()
  }
}
