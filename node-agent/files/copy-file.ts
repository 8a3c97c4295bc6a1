import { constants, read, write } from 'node:fs'
import { copyFile } from 'node:fs/promises'
import { promisify } from 'node:util'
import {
  closeFile,
  EIO,
  type FileStat,
  nextData,
  nextHole,
  O_CREAT,
  O_EXCL,
  O_RDWR,
  openAt,
  type Place,
  truncateFd,
} from '../kernel/file-calls.ts'
import { ENXIO } from '../kernel/libc.ts'

const readAt = promisify(read)
const writeAt = promisify(write)
const chunkBytes = 2 ** 20

/**
 * Copies a file into the work folder. Blocks are shared where the file system can (XFS, Btrfs). Elsewhere holes stay holes: a
 * disk image of a terabyte with a gigabyte in it would fill the disk. On threads of Node's pool, since a large file takes
 * seconds, and a silent connection counts as cut. 0 or minus the errno.
 */
export async function copyOf(fd: number, to: Place, stat: FileStat): Promise<number> {
  const isSparse = stat.allocated < stat.size
  const { COPYFILE_FICLONE, COPYFILE_FICLONE_FORCE } = constants
  const copied = await errnoOf(
    copyFile(
      `/proc/self/fd/${fd}`,
      `/proc/self/fd/${to.dirFd}/${to.name}`,
      isSparse ? COPYFILE_FICLONE_FORCE : COPYFILE_FICLONE,
    ),
  )
  if (copied === 0 || !isSparse) return copied
  const into = openAt(to.dirFd, to.name, { flags: O_CREAT | O_EXCL | O_RDWR, mode: 0o600 })
  if (into < 0) return into
  try {
    const sized = truncateFd(into, stat.size)
    return sized < 0 ? sized : await errnoOf(copyData(fd, into, stat.size))
  } finally {
    closeFile(into)
  }
}

async function copyData(from: number, to: number, size: number): Promise<void> {
  const chunk = Buffer.allocUnsafe(chunkBytes)
  for (let at = 0; at < size; ) {
    const data = nextData(from, at)
    // Nothing but a hole is left.
    if (data === -ENXIO) return
    if (data < 0) throw failed(data)
    const end = nextHole(from, data)
    if (end < 0) throw failed(end)
    for (at = data; at < end; ) {
      const { bytesRead } = await readAt(from, chunk, 0, Math.min(chunkBytes, end - at), at)
      // It became shorter, and is another version by now.
      if (bytesRead === 0) return
      for (let done = 0; done < bytesRead; ) {
        done += (await writeAt(to, chunk, done, bytesRead - done, at + done)).bytesWritten
      }
      at += bytesRead
    }
  }
}

const failed = (errno: number): Error => Object.assign(new Error('looking for data'), { errno })

async function errnoOf(work: Promise<void>): Promise<number> {
  try {
    await work
    return 0
  } catch (error) {
    return error instanceof Error && 'errno' in error ? Number(error.errno) : -EIO
  }
}
