import type { OperatorCommand } from '../../shared/protocol/types.ts'
import type { OperatorAnswer } from '../execute.ts'
import type { DiskPort } from '../ports.ts'
import { diskAction, diskAlarm, type Room, roomOf, tightest } from './policy.ts'

/** Watches the room on this host's disks and acts before it is gone. */
export interface DiskGuardOptions {
  disk: DiskPort
  freeDiskMb: number
  operator: (command: OperatorCommand) => Promise<OperatorAnswer>
  alarm: (why: string) => void
  note: (why: string) => void
}

/** What the core did not take, as while a durable write hangs, is asked of it again after this. */
const againAfterMs = 10_000

export class DiskGuard {
  readonly #options: DiskGuardOptions
  #triedAt = Number.NEGATIVE_INFINITY
  #stepsBack = false
  #refusedAt = Number.NEGATIVE_INFINITY
  #released = false

  constructor(options: DiskGuardOptions) {
    this.#options = options
  }

  get room(): Room {
    return roomOf(this.#options.disk.state(), this.#options.freeDiskMb)
  }

  tick(now: number, seen: { role: string; epoch: number; peerRoom: Room; serverEndedFull: boolean }): void {
    const { disk, freeDiskMb, operator, alarm, note } = this.#options
    disk.tick(now)
    alarm(diskAlarm(disk.state(), freeDiskMb))
    const { role, epoch, peerRoom } = seen
    const nothingLeft = (tightest(disk.state().volumes)?.freeMb ?? 1) < 1
    if ((seen.serverEndedFull || nothingLeft) && !this.#released) {
      this.#released = true
      note('the reserve is given back: the disk is full')
      void disk.releaseReserve().catch((error: unknown) => note(`the reserve could not be removed: ${String(error)}`))
    }
    if (!seen.serverEndedFull && this.room !== 'critical') this.#released = false
    const { room } = this
    const triedAgoMs = now - this.#triedAt
    switch (diskAction({ room, role, peerRoom, triedAgoMs, stepsBack: this.#stepsBack })) {
      case 'stepBack':
        if (now - this.#refusedAt < againAfterMs) return
        note('steps back as backup: its disk is nearly full, and the primary must not wait for it')
        this.#stepTo('back', now)
        return
      case 'return':
        if (now - this.#refusedAt < againAfterMs) return
        note('there is room on the disk again')
        this.#stepTo('place', now)
        return
      case 'switchover':
        this.#triedAt = now
        note('hands over: its disk is nearly full, and the other host has room')
        void operator({ command: 'switchover', epoch })
        return
      case 'none':
    }
  }

  #stepTo(where: 'back' | 'place', now: number): void {
    const stepsBack = where === 'back'
    this.#stepsBack = stepsBack
    void this.#options.operator({ command: stepsBack ? 'leave' : 'stay' }).then(({ ok }) => {
      if (ok) return
      this.#stepsBack = !stepsBack
      this.#refusedAt = now
    })
  }
}
