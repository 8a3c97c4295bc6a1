/**
 * The Debian (and Ubuntu) packages that development needs, and their installation: one table for `npm start`, the tests
 * and the benchmarks. Nothing is installed that is there already.
 *
 * Installing `postgresql` makes Debian create and start a cluster of its own ("main"); the lab neither uses nor
 * disturbs it, its databases live in network namespaces.
 */

import { execFile } from 'node:child_process'
import { accessSync, constants, existsSync } from 'node:fs'
import { delimiter, join } from 'node:path'
import { promisify } from 'node:util'
import { findPostgresBinDir } from '../lab/postgres-programs.ts'

const execute = promisify(execFile)
/** A slow mirror takes minutes; one that takes a quarter of an hour does not answer. */
const INSTALL_LIMIT_MS = 15 * 60_000
const OUTPUT_LIMIT_BYTES = 64 * 1024 * 1024

interface Need {
  why: string
  isThere: () => boolean
}

/** Programs of the administrator are not on every user's PATH. */
const ADMIN_DIRS = ['/usr/local/sbin', '/usr/sbin', '/sbin']

function hasProgram(name: string): boolean {
  const dirs = [...(process.env.PATH ?? '').split(delimiter), ...ADMIN_DIRS].filter(Boolean)
  return dirs.some(dir => {
    try {
      accessSync(join(dir, name), constants.X_OK)
      return true
    } catch {
      return false
    }
  })
}

const NEEDS = {
  postgresql: { why: 'the database that is kept running', isThere: () => findPostgresBinDir() !== null },
  nftables: { why: 'the gate, and the lab’s faults of the network', isThere: () => hasProgram('nft') },
  iproute2: { why: 'network namespaces, addresses, resets', isThere: () => hasProgram('ip') && hasProgram('ss') },
  openssl: { why: 'certificates between the hosts', isThere: () => hasProgram('openssl') },
  'util-linux': { why: 'entering a host’s namespaces', isThere: () => hasProgram('nsenter') && hasProgram('setpriv') },
  e2fsprogs: { why: 'small disks that can be filled', isThere: () => hasProgram('mkfs.ext4') },
} satisfies { [name: string]: Need }

export type DebianPackage = keyof typeof NEEDS

export const ALL_PACKAGES = Object.keys(NEEDS) as DebianPackage[]

export function missingPackages(wanted: readonly DebianPackage[] = ALL_PACKAGES): DebianPackage[] {
  return wanted.filter(name => !NEEDS[name].isThere())
}

/** Why this machine cannot run the lab at all, as a sentence, or null. */
export function unsuitable(): string | null {
  if (process.platform !== 'linux') {
    return `This needs Linux (network namespaces, nftables), and this is ${process.platform}. A virtual machine with Debian or Ubuntu will do.`
  }
  if (process.getuid?.() !== 0) {
    return 'This needs root: it makes network namespaces, firewall tables and control groups. Run it with sudo, or as root in a virtual machine.'
  }
  return null
}

/**
 * Installs what is missing. `say` gets a line for each step.
 * @throws a sentence with what to do by hand
 */
export async function ensurePackages(
  say: (line: string) => void,
  wanted: readonly DebianPackage[] = ALL_PACKAGES,
): Promise<void> {
  const missing = missingPackages(wanted)
  if (missing.length === 0) return
  const byHand = `install these packages yourself: ${missing.join(', ')}`
  if (!existsSync('/usr/bin/apt-get')) throw new Error(`This is neither Debian nor Ubuntu (no apt-get): ${byHand}.`)
  say('Installing Debian packages:')
  for (const name of missing) say(`  ${name}: ${NEEDS[name].why}`)
  const limits = { timeout: INSTALL_LIMIT_MS, maxBuffer: OUTPUT_LIMIT_BYTES }
  const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive' }
  try {
    await execute('apt-get', ['update', '-q'], { ...limits, env })
    await execute('apt-get', ['install', '-q', '-y', '--no-install-recommends', ...missing], { ...limits, env })
  } catch (error) {
    const { stderr = '' } = error as { stderr?: string }
    throw new Error(`apt-get could not install ${missing.join(', ')}: ${stderr.trim().split('\n').slice(-3).join(' ')}`)
  }
  const still = missingPackages(wanted)
  if (still.length > 0) throw new Error(`Still missing after installation: ${still.join(', ')}.`)
}
