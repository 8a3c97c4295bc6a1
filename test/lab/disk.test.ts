/** Rows of the fault matrix in which a disk is full to its last block: state, database and log of a host lie on it. */

import assert from 'node:assert/strict'
import { setTimeout as sleep } from 'node:timers/promises'
import { pairUnderLoad } from './support.ts'

/** Twice what an empty cluster and its log take. */
const { row } = pairUnderLoad('disk', { diskMib: 512 })

/** A look at the volumes each second, a notice, and a hand-over on a busy machine. */
const NOTICE_BOUND_MS = 15_000
const OUTAGE_BOUND_MS = 6_000
/** Long enough for a log that is written all the time to want its next segments. */
const STAYS_FULL_MS = 6_000

row(
  'row 23: a backup whose disk is full steps back before the primary waits for it, and returns when there is room',
  async ({ pair, primary, backup }) => {
    const { epoch } = await pair.present(primary)
    const fromId = pair.newestDecision(backup)
    const step = await pair.trial.measure('full disk of the backup', async () => {
      await pair.inject({ kind: 'disk-full', host: backup })
      await pair.untilStatus(
        primary,
        { limitMs: NOTICE_BOUND_MS, words: 'goes on without its backup' },
        ({ serving, successor }) => serving && !successor,
      )
      await sleep(STAYS_FULL_MS)
    })
    assert.ok(step.outage.gapMs < OUTAGE_BOUND_MS, `writes stood still for ${step.outage.gapMs} ms`)
    const alone = await pair.present(primary)
    assert.deepEqual([alone.epoch, alone.serving, alone.successor], [epoch, true, false])
    // By its own word, rather than by the death of its WAL receiver.
    const said = pair.decisions(backup, fromId).map(({ why }) => why)
    assert.ok(
      said.some(why => why.startsWith('steps back as backup')),
      said.join('\n'),
    )
    const full = await pair.present(backup)
    assert.match(full.alarms.join('\n'), /MiB free, limits\.freeDiskMb is 32: free space or enlarge it/)
  },
  { stays: true },
)

row(
  'row 22: a primary whose disk is full hands over to the host with room, stays away, and follows when there is room again',
  async ({ pair, primary, backup }) => {
    const { epoch } = await pair.present(primary)
    const step = await pair.trial.measure('full disk of the primary', async () => {
      await pair.inject({ kind: 'disk-full', host: primary })
      await pair.untilServing(backup, NOTICE_BOUND_MS)
    })
    assert.ok(step.outage.gapMs < OUTAGE_BOUND_MS, `writes stood still for ${step.outage.gapMs} ms`)
    await sleep(STAYS_FULL_MS)
    // Neither a way back nor a loop: one change of primary, and the service goes on where there is room.
    const taken = await pair.present(backup)
    assert.deepEqual([taken.epoch, taken.serving], [epoch + 1, true])
    await pair.untilWritten(OUTAGE_BOUND_MS)
    const full = await pair.present(primary)
    assert.equal(full.serving, false)
    assert.match(full.alarms.join('\n'), /MiB free, limits\.freeDiskMb is 32: free space or enlarge it/)
  },
)
