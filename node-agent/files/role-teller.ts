import type { ServiceState } from '../ports.ts'
import { type FilesRole, termOf } from './settings.ts'

/** A service that can't be stopped must not keep this host from being a backup for ever. */
const stopLimitMs = 30_000

/**
 * What the files worker is told of this host's role: primary at once, backup only when no service of this host can
 * write into the trees any more. What they wrote until then counts as this host's own.
 */
export class RoleTeller {
  #told: FilesRole | null = null
  #backupSinceMs = 0

  /** Null: nothing new is to be told now. */
  next(part: {
    status: { role: string; gen: number; epoch: number }
    services: () => readonly ServiceState[]
    nowMs: number
  }): FilesRole | null {
    const { status, services, nowMs } = part
    const { role } = status
    // Frozen or not known yet: nothing changes until the register says who is primary.
    if (role !== 'primary' && role !== 'backup') return null
    const epoch = termOf(status)
    if (this.#told?.role === role && this.#told.epoch === epoch) return null
    if (role === 'backup') {
      if (this.#backupSinceMs === 0) this.#backupSinceMs = nowMs
      const isQuiet = services().every(({ state }) => state === 'stopped' || state === 'failed')
      if (!isQuiet && nowMs - this.#backupSinceMs <= stopLimitMs) return null
    }
    this.#backupSinceMs = 0
    this.#told = { role, epoch }
    return this.#told
  }
}
