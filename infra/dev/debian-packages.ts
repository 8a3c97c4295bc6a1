/**
 * The Debian (and Ubuntu) packages that the lab and the tests need beside npm's, and their installation when missing.
 *
 * One table says what each is for. Nothing is upgraded, nothing that is there already is touched, and installing the
 * programs of PostgreSQL and Mosquitto does not bring up servers of Debian's own.
 */

import { spawn } from 'node:child_process'
import { accessSync, constants, existsSync, mkdirSync, readdirSync, rmdirSync, rmSync, writeFileSync } from 'node:fs'
import { delimiter, join } from 'node:path'

interface Need {
  /** What we use it for, in words that complete "nftables: …". */
  purpose: string
  isThere: () => boolean
  /** The lab does without. */
  onlyTests?: true
  /** Not even by the tests: benchmarks compare with it. */
  onlyBench?: true
  /** Nor by them: emulated machines are a command of their own. */
  onlyVm?: true
}
const onlyTests = true
const onlyBench = true
const onlyVm = true

/** Programs of the administrator are not on every user's PATH. */
const ADMIN_DIRS = ['/usr/local/sbin', '/usr/sbin', '/sbin']
/** Where Debian keeps the server programs of each major version. */
const POSTGRES_VERSIONS_DIR = '/usr/lib/postgresql'

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK)
    return true
  } catch {
    return false
  }
}

function hasPrograms(...names: string[]): boolean {
  const dirs = [...(process.env.PATH ?? '').split(delimiter), ...ADMIN_DIRS].filter(Boolean)
  return names.every(name => dirs.some(dir => isExecutable(join(dir, name))))
}

function hasPostgres(): boolean {
  if (!existsSync(POSTGRES_VERSIONS_DIR)) return false
  const versions = readdirSync(POSTGRES_VERSIONS_DIR)
  return hasPrograms('psql') && versions.some(it => isExecutable(join(POSTGRES_VERSIONS_DIR, it, 'bin', 'pg_rewind')))
}

const NEEDS = {
  postgresql: { purpose: 'the database that is kept running', isThere: hasPostgres },
  nftables: { purpose: 'the gate in the kernel, and faults of the network', isThere: () => hasPrograms('nft') },
  iproute2: { purpose: 'network namespaces, addresses, connections', isThere: () => hasPrograms('ip', 'ss', 'tc') },
  openssl: { purpose: 'certificates between the hosts', isThere: () => hasPrograms('openssl') },
  mosquitto: {
    purpose: 'the broker between control plane and hosts',
    isThere: () => hasPrograms('mosquitto'),
    onlyTests,
  },
  procps: { purpose: 'processes and kernel settings', isThere: () => hasPrograms('pgrep', 'sysctl') },
  'util-linux': {
    purpose: 'entering a host’s namespaces, other users’ rights',
    isThere: () => hasPrograms('nsenter', 'unshare', 'setpriv', 'flock'),
  },
  mount: { purpose: 'disks of a host of the lab', isThere: () => hasPrograms('mount', 'umount', 'losetup') },
  e2fsprogs: {
    purpose: 'small disks that can be filled, or that fail',
    isThere: () => hasPrograms('mkfs.ext4', 'filefrag'),
  },
  rsync: { purpose: 'comparing two trees in everything it knows', isThere: () => hasPrograms('rsync'), onlyTests },
  attr: { purpose: 'extended attributes of files', isThere: () => hasPrograms('setfattr'), onlyTests },
  acl: { purpose: 'access lists of files', isThere: () => hasPrograms('setfacl'), onlyTests },
  hostname: { purpose: 'a name for each host of the lab', isThere: () => hasPrograms('hostname') },
  'iputils-ping': {
    purpose: 'asking whether the other side is reached',
    isThere: () => hasPrograms('ping'),
    onlyTests,
  },
  ethtool: {
    purpose: 'virtual cables whose packets carry checksums',
    isThere: () => hasPrograms('ethtool'),
    onlyTests,
  },
  'openvswitch-switch': {
    purpose: 'vSwitches on Open vSwitch, in user space',
    isThere: () => hasPrograms('ovs-vsctl', 'ovs-vswitchd', 'ovsdb-server'),
    onlyTests,
  },
  tgt: { purpose: 'an iSCSI target', isThere: () => hasPrograms('tgtd', 'tgtadm'), onlyTests },
  'libiscsi-bin': {
    purpose: 'asking an iSCSI portal for its targets',
    isThere: () => hasPrograms('iscsi-ls'),
    onlyTests,
  },
  lsyncd: { purpose: 'a peer of the file replication', isThere: () => hasPrograms('lsyncd'), onlyBench },
  syncthing: { purpose: 'a peer of the file replication', isThere: () => hasPrograms('syncthing'), onlyBench },
  'qemu-system-x86': { purpose: 'emulated machines', isThere: () => hasPrograms('qemu-system-x86_64'), onlyVm },
  mmdebstrap: { purpose: 'their disks', isThere: () => hasPrograms('mmdebstrap'), onlyVm },
} satisfies { [name: string]: Need }

export type DebianPackage = keyof typeof NEEDS

const everything = Object.keys(NEEDS) as readonly DebianPackage[]
export const ALL_PACKAGES = everything.filter(name => !('onlyBench' in NEEDS[name]) && !('onlyVm' in NEEDS[name]))
export const VM_PACKAGES: readonly DebianPackage[] = ['qemu-system-x86', 'mmdebstrap', 'e2fsprogs']
export const LAB_PACKAGES = ALL_PACKAGES.filter(name => !('onlyTests' in NEEDS[name]))

export function missingPackages(wanted: readonly DebianPackage[] = ALL_PACKAGES): DebianPackage[] {
  return wanted.filter(name => !NEEDS[name].isThere())
}

/** Why this machine cannot run the lab or the tests with real parts, as a sentence, or null. */
export function unsuitable(): string | null {
  if (process.platform !== 'linux') {
    return `This needs Linux (network namespaces, nftables), and this is ${process.platform}. A virtual machine with Debian or Ubuntu will do.`
  }
  if (process.getuid?.() !== 0) {
    return 'This needs root: it makes network namespaces, firewall tables and control groups. Run it with sudo, or as root in a virtual machine.'
  }
  return null
}

/** A slow mirror takes minutes; one that takes a quarter of an hour does not answer. */
const INSTALL_LIMIT_MS = 15 * 60_000
/** Another package manager at work (unattended upgrades after a boot) is waited for so long. */
const LOCK_WAIT_S = 180
/** What is shown of a failed installation: apt says the reason last. */
const SHOWN_LINES = 12

/**
 * Installs those of the packages that are missing, and says which, why, and what each is for.
 * @param options.why who needs them, completing "… needs": "the lab", "the integration tests"
 * @param options.say gets one line for each step; stderr by default
 * @throws a sentence with what to do by hand
 */
export async function ensureDebianPackages(
  wanted: readonly DebianPackage[],
  { why, say = line => process.stderr.write(`${line}\n`) }: { why: string; say?: (line: string) => void },
): Promise<void> {
  const missing = missingPackages(wanted)
  if (missing.length === 0) return
  const byHand = `apt-get install --no-install-recommends ${missing.join(' ')}`
  if (!hasPrograms('apt-get')) {
    throw new Error(
      `${why} needs the programs of the Debian packages ${missing.join(', ')}, which are missing, and this is neither Debian nor Ubuntu (no apt-get): install what corresponds to them.`,
    )
  }
  if (process.getuid?.() !== 0) {
    throw new Error(
      `${why} needs the Debian packages ${missing.join(', ')}, which are missing; installing them needs root. Run this again as root, or first: sudo ${byHand}`,
    )
  }
  say(`${why} needs Debian packages that are missing here; they are installed now:`)
  for (const name of missing) say(`  ${name.padEnd(18)} ${NEEDS[name].purpose}`)
  await withoutMainCluster(() => withoutServices(() => install(missing)))
  if (missing.includes('mosquitto')) await leaveDisabled('mosquitto.service')
  if (missing.includes('openvswitch-switch')) await leaveDisabled('openvswitch-switch.service')
  if (missing.includes('tgt')) await leaveDisabled('tgt.service')
  const still = missingPackages(missing)
  if (still.length > 0) {
    throw new Error(`After "${byHand}" the programs of ${still.join(', ')} are still missing; install them by hand.`)
  }
  say('Debian packages installed.')
}

async function install(packages: readonly DebianPackage[]): Promise<void> {
  const apt = ['-q', '-y', '-o', `DPkg::Lock::Timeout=${LOCK_WAIT_S}`]
  // A mirror that does not answer is no reason to stop where the packages are at hand; the installation will tell.
  const update = await run('apt-get', [...apt, 'update'])
  const result = await run('apt-get', [...apt, 'install', '--no-install-recommends', ...packages])
  if (result.ok) return
  const shown = [...(update.ok ? [] : lastLines(update.output)), ...lastLines(result.output)].join('\n  ')
  throw new Error(`apt-get could not install ${packages.join(', ')}; it said:\n  ${shown}`)
}

function lastLines(text: string): string[] {
  return text.trimEnd().split('\n').slice(-SHOWN_LINES)
}

function run(command: string, args: readonly string[]): Promise<{ ok: boolean; output: string }> {
  return new Promise(resolve => {
    const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive', LC_ALL: 'C.UTF-8' }
    const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'pipe'], timeout: INSTALL_LIMIT_MS, env })
    let output = ''
    const keep = (chunk: Buffer): void => {
      output += chunk.toString()
    }
    child.stdout.on('data', keep)
    child.stderr.on('data', keep)
    child.on('error', error => resolve({ ok: false, output: `${output}${error.message}` }))
    child.on('close', (code, signal) => {
      const ended = signal === null ? '' : `\nended by ${signal} (limit ${INSTALL_LIMIT_MS / 60_000} minutes)`
      resolve({ ok: code === 0, output: output + ended })
    })
  })
}

const CREATE_CLUSTER_DIR = '/etc/postgresql-common/createcluster.d'
const NO_CLUSTER_FILE = join(CREATE_CLUSTER_DIR, 'understudy-no-main-cluster.conf')

/**
 * Debian's postgresql makes a cluster "main" and starts it on port 5432. We want the programs alone, so its own switch
 * (createcluster.conf(5), include_dir) is off for as long as the installation lasts.
 */
async function withoutMainCluster<T>(work: () => Promise<T>): Promise<T> {
  const firstMade = mkdirSync(CREATE_CLUSTER_DIR, { recursive: true })
  writeFileSync(NO_CLUSTER_FILE, '# Here only while Understudy installs PostgreSQL.\ncreate_main_cluster = false\n')
  try {
    return await work()
  } finally {
    rmSync(NO_CLUSTER_FILE, { force: true })
    if (firstMade !== undefined) removeIfEmpty(CREATE_CLUSTER_DIR, firstMade)
  }
}

const POLICY_FILE = '/usr/sbin/policy-rc.d'

/** Debian starts the services of a package as it is installed, unless this file forbids it (invoke-rc.d(8), 101). */
async function withoutServices<T>(work: () => Promise<T>): Promise<T> {
  if (existsSync(POLICY_FILE)) return work()
  writeFileSync(POLICY_FILE, '#!/bin/sh\n# Here only while Understudy installs programs.\nexit 101\n', { mode: 0o755 })
  try {
    return await work()
  } finally {
    rmSync(POLICY_FILE, { force: true })
  }
}

/** Nor does a service that came with our programs start at the next boot; where there is no systemd, nothing would. */
async function leaveDisabled(unit: string): Promise<void> {
  if (hasPrograms('systemctl')) await run('systemctl', ['disable', unit])
}

/** Removes directories that we made and that no package has put anything into, from `dir` up to `top`. */
function removeIfEmpty(dir: string, top: string): void {
  try {
    rmdirSync(dir)
  } catch {
    return // in use by the package now
  }
  if (dir !== top) removeIfEmpty(join(dir, '..'), top)
}
