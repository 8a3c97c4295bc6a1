/** A small disk of its own for a host: an ext4 file system in a file, so that a full disk hurts that host alone. */

import { closeSync, existsSync, ftruncateSync, mkdirSync, openSync, readFileSync, rmSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { run, tryRun } from './exec.ts'

const MIB = 1024 * 1024
const FILLER = '.filler'
const FILL_STEPS_BYTES = [4 * MIB, 64 * 1024, 4096]

function imagePath(diskDir: string): string {
  return `${diskDir}.img`
}

/** Makes and mounts the disk at `diskDir`. Needs a free loop device. */
export async function createDisk(diskDir: string, sizeMib: number): Promise<void> {
  mkdirSync(diskDir, { recursive: true })
  const image = openSync(imagePath(diskDir), 'w')
  ftruncateSync(image, sizeMib * MIB)
  closeSync(image)
  // No blocks kept for root: the database's account must meet the end of the disk where the agent's does.
  await run('mkfs.ext4', ['-q', '-F', '-m', '0', imagePath(diskDir)])
  await run('mount', ['-o', 'loop', imagePath(diskDir), diskDir])
}

export function hasDisk(diskDir: string): boolean {
  return readFileSync('/proc/self/mounts', 'utf8').includes(` ${diskDir} ext4 `)
}

/** Fills the disk to its last block. */
export function fillDisk(diskDir: string): void {
  if (!hasDisk(diskDir)) {
    throw new Error(
      'This lab has no small disks, and the machine’s own is not filled: start it with `lab up --disk-mib 512`.',
    )
  }
  const filler = openSync(join(diskDir, FILLER), 'a')
  try {
    for (const step of FILL_STEPS_BYTES) writeUntilFull(filler, Buffer.alloc(step, 0x75))
  } finally {
    closeSync(filler)
  }
}

export function isDiskFilled(diskDir: string): boolean {
  return existsSync(join(diskDir, FILLER))
}

function writeUntilFull(fd: number, block: Buffer): void {
  for (;;) {
    try {
      if (writeSync(fd, block) < block.length) return
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOSPC') return
      throw error
    }
  }
}

export function emptyDisk(diskDir: string): void {
  rmSync(join(diskDir, FILLER), { force: true })
}

/**
 * The disk hangs: no write ends, and none fails, until it is released; whoever writes sleeps where no signal reaches.
 * @throws where the lab has no small disks
 */
export async function hangDisk(diskDir: string): Promise<void> {
  if (!hasDisk(diskDir)) {
    throw new Error(
      'This lab has no small disks, and the machine’s own is not stopped: start it with `lab up --disk-mib 512`.',
    )
  }
  await run('fsfreeze', ['--freeze', diskDir])
}

/** Writes go on; one that does not hang is left alone. */
export async function releaseDisk(diskDir: string): Promise<void> {
  if (existsSync(diskDir) && hasDisk(diskDir)) await tryRun('fsfreeze', ['--unfreeze', diskDir])
}

/** Unmounts and removes a disk; the loop device goes with the mount. */
export async function destroyDisk(diskDir: string): Promise<void> {
  if (existsSync(diskDir) && hasDisk(diskDir)) {
    // A process in another mount namespace may hold a copy of the mount; the lazy form ends with it.
    if (!(await tryRun('umount', [diskDir]))) await run('umount', ['--lazy', diskDir])
  }
  rmSync(imagePath(diskDir), { force: true })
}
