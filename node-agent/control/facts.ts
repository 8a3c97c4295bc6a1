import { existsSync, readdirSync, readFileSync, statfsSync } from 'node:fs'
import { arch, cpus, hostname, networkInterfaces, release, totalmem } from 'node:os'
import { dirname } from 'node:path'
import type { HostFacts } from '../../shared/contract/api/host-facts.ts'
import { exec } from '../exec.ts'
import { softwareVersion } from '../version.ts'

/** What the control plane compares of two machines before it makes a pair of them. What can't be read is left out. */
export async function factsOfHost(part: { binDir: string; dataDir: string }): Promise<HostFacts> {
  const volume = volumeOf(part.dataDir)
  return {
    architecture: arch() === 'x64' ? 'x86_64' : arch() === 'arm64' ? 'aarch64' : arch(),
    kernel: release().slice(0, wordMax),
    bootMode: existsSync('/sys/firmware/efi') ? 'uefi' : existsSync('/sys/firmware') ? 'bios' : 'unknown',
    product: readWord('/sys/class/dmi/id/product_name') ?? 'unknown',
    productVersion: softwareVersion.slice(0, wordMax),
    postgresVersion: await postgresVersion(part.binDir),
    hostName: hostname().slice(0, wordMax),
    addresses: ownAddresses(),
    memoryMb: Math.floor(totalmem() / 2 ** 20),
    cpus: cpus().length,
    disks: disks(),
    dataFreeMb: volume === null ? null : Math.floor((volume.bavail * volume.bsize) / 2 ** 20),
    dataSizeMb: volume === null ? null : Math.floor((volume.blocks * volume.bsize) / 2 ** 20),
    // systemd-timesyncd(8) touches this file when it has set the clock; other daemons leave nothing to look at.
    timeSource: existsSync('/run/systemd/timesync/synchronized') ? 'synchronised' : 'unknown',
  }
}

const wordMax = 128
const listMax = 64
const versionLimitMs = 5000

function readWord(path: string): string | null {
  try {
    return readFileSync(path, 'utf8').trim().slice(0, wordMax) || null
  } catch {
    return null
  }
}

async function postgresVersion(binDir: string): Promise<string | null> {
  const answer = await exec([`${binDir}/postgres`, '--version'], { limitMs: versionLimitMs })
  return answer.ok ? (/(\d+(\.\d+)?)/.exec(answer.stdout)?.[1] ?? null) : null
}

function ownAddresses(): NonNullable<HostFacts['addresses']> {
  return Object.entries(networkInterfaces())
    .flatMap(([name, held]) =>
      (held ?? []).filter(one => !one.internal && one.cidr !== null).map(one => ({ name, one })),
    )
    .filter(({ name, one }) => name.length <= 15 && !one.address.startsWith('fe80'))
    .slice(0, listMax)
    .map(({ name, one }) => ({ interface: name, address: one.cidr ?? one.address }))
}

/** Sizes in /sys are in units of 512 bytes, whatever the disk's own. */
function disks(): NonNullable<HostFacts['disks']> {
  try {
    return readdirSync('/sys/block')
      .filter(name => !/^(loop|ram|zram|dm-|sr|fd)/.test(name))
      .slice(0, listMax)
      .map(name => ({ name, sizeMb: Math.floor((Number(readWord(`/sys/block/${name}/size`)) * 512) / 2 ** 20) }))
      .filter(disk => Number.isFinite(disk.sizeMb))
  } catch {
    return []
  }
}

/** Of the nearest folder that is there: the data directory is made by the set-up. */
function volumeOf(path: string): { bavail: number; blocks: number; bsize: number } | null {
  for (let at = path; ; at = dirname(at)) {
    if (existsSync(at)) return statfsSync(at)
    if (at === dirname(at)) return null
  }
}
