import { open, realpath, rm, stat, statfs } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import type { DiskPort, DiskState, Volume } from '../ports.ts'

/**
 * How much room the volumes of this host have, looked at beside everything else: a look that hangs is seen by its age
 * and holds up nothing. And a reserve: a file that is given back when the log's volume is full, so that the server can
 * end or recover in an orderly way.
 */

const lookEveryMs = 1000
/** Which volumes there are is found out anew after so many looks: a mount or a link may have changed. */
const looksOfOneFind = 10
/** Where it can't be written although there is room (a quota, a bad block), tens of megabytes are not tried each second. */
const reserveRetryMs = 60_000
const mib = 2 ** 20

interface Places {
  dataDir: string
  stateDir: string
}
export interface DiskSpaceOptions extends Places {
  /** Below this the reserve is not made: it must never be what fills the disk. */
  freeDiskMb: number
}

/** As much as a crash recovery and a checkpoint need at least; a small part of what is to be kept free. */
export const reserveMbOf = (freeDiskMb: number): number => Math.max(1, Math.min(64, Math.floor(freeDiskMb / 8)))

/** One path on each volume that the database and the agent write to. Rejects where one can't be looked at. */
export async function volumePaths({ dataDir, stateDir }: Places): Promise<string[]> {
  const found = new Map<number, string>()
  for (const path of [dataDir, join(dataDir, 'pg_wal'), stateDir]) {
    const real = await nearest(path)
    const { dev } = await stat(real)
    if (!found.has(dev)) found.set(dev, real)
  }
  return [...found.values()]
}

/** Answered from memory, unless a device hangs. */
export function volumesAt(paths: readonly string[]): Promise<Volume[]> {
  return Promise.all(
    paths.map(async path => {
      const { bavail, blocks, bsize } = await statfs(path)
      return { path, freeMb: mb(bavail * bsize), totalMb: mb(blocks * bsize) }
    }),
  )
}

export class DiskSpace implements DiskPort {
  readonly #options: DiskSpaceOptions
  #volumes: Volume[] = []
  #paths: string[] = []
  #looks = 0
  #reserveMb = 0
  #looking = false
  #lookedAt = 0
  #now = 0
  #released = false
  /** Being written, which takes a slow disk many seconds: no sign that it hangs. */
  #making = false
  #triedAt = Number.NEGATIVE_INFINITY

  constructor(options: DiskSpaceOptions) {
    this.#options = options
  }

  state(): DiskState {
    const hangsMs = this.#looking ? this.#now - this.#lookedAt : 0
    return { volumes: this.#volumes, hangsMs, reserveMb: this.#reserveMb }
  }

  tick(nowMs: number): void {
    this.#now = nowMs
    if (this.#looking || nowMs - this.#lookedAt < lookEveryMs) return
    this.#looking = true
    this.#lookedAt = nowMs
    void this.look()
      .catch(() => {})
      .finally(() => {
        this.#looking = false
      })
  }

  async look(): Promise<void> {
    const { freeDiskMb } = this.#options
    const find = this.#paths.length === 0 || this.#looks % looksOfOneFind === 0
    this.#looks += 1
    // Empty until all is found: what fails half-way is found anew at the next look.
    const paths = find ? await volumePaths(this.#options) : this.#paths
    this.#paths = []
    const volumes = await volumesAt(paths)
    this.#paths = paths
    this.#volumes = volumes
    if (this.#released && volumes.every(one => one.freeMb > freeDiskMb + reserveMbOf(freeDiskMb)))
      this.#released = false
    const isDue = this.#now - this.#triedAt >= reserveRetryMs
    if (!this.#released && this.#reserveMb === 0 && !this.#making && isDue) this.#beginReserve()
  }

  async releaseReserve(): Promise<void> {
    this.#released = true
    this.#reserveMb = 0
    await rm(await this.#reservePath(), { force: true })
  }

  #beginReserve(): void {
    this.#making = true
    this.#triedAt = this.#now
    void this.#makeReserve()
      .catch(() => {})
      .finally(() => {
        this.#making = false
      })
  }

  async #makeReserve(): Promise<void> {
    const { freeDiskMb } = this.#options
    const wanted = reserveMbOf(freeDiskMb)
    const path = await this.#reservePath()
    const size = await stat(path).then(
      one => mb(one.size),
      () => 0,
    )
    if (size < wanted) {
      if (this.#volumes.some(one => one.freeMb < freeDiskMb + wanted)) return
      const file = await open(path, 'w', 0o600)
      try {
        // Written, not sparse: only blocks that are taken can be given back.
        for (let done = 0; done < wanted && !this.#released; done++) await file.write(Buffer.alloc(mib, 1))
        await file.sync()
      } finally {
        await file.close()
      }
    }
    // Given back while it was being written.
    if (this.#released) await rm(path, { force: true })
    else this.#reserveMb = wanted
  }

  /** On the volume of the log, outside the cluster where that can be: a base backup would copy it. */
  async #reservePath(): Promise<string> {
    const wal = await nearest(join(this.#options.dataDir, 'pg_wal'))
    const { dev } = await stat(wal)
    const { dataDir, stateDir } = this.#options
    for (const folder of [stateDir, dirname(dataDir), dirname(wal)]) {
      if ((await stat(folder)).dev === dev) return join(folder, 'understudy.reserve')
    }
    return join(wal, 'understudy.reserve')
  }
}

const mb = (bytes: number): number => Math.floor(bytes / mib)

/** The path with its links followed, or the nearest folder above that exists: before the first cluster is made. */
async function nearest(path: string): Promise<string> {
  try {
    return await realpath(path)
  } catch {
    return dirname(path) === path ? path : nearest(dirname(path))
  }
}
