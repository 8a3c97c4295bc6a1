import assert from 'node:assert/strict'
import { test } from 'node:test'
import { DiskGuard } from '../../node-agent/disk/guard.ts'
import { type DiskSituation, diskAction, diskAlarm, roomOf, switchoverPauseMs } from '../../node-agent/disk/policy.ts'
import { faultOf } from '../../node-agent/postgres/server-log.ts'

const disks = (...freeMb: number[]) => ({
  volumes: freeMb.map((free, index) => ({ path: `/volume${index}`, freeMb: free, totalMb: 1000 })),
  hangsMs: 0,
  reserveMb: 0,
})

test('the tightest volume counts, and what was never seen or hangs is unknown', () => {
  assert.equal(roomOf(disks(900, 512), 512), 'ample')
  assert.equal(roomOf(disks(900, 511), 512), 'low')
  assert.equal(roomOf(disks(127, 900), 512), 'critical')
  assert.equal(roomOf(disks(), 512), 'unknown')
  assert.equal(roomOf({ ...disks(900), hangsMs: 6000 }, 512), 'unknown')
})

test('the alarm names the volume, both figures and what happens next', () => {
  assert.equal(diskAlarm(disks(900), 512), '')
  assert.match(diskAlarm(disks(900, 300), 512), /\/volume1 has 300 MiB free, limits.freeDiskMb is 512: .*below 128 MiB/)
  assert.match(diskAlarm({ ...disks(900), hangsMs: 6000 }, 512), /has not answered for 6 s/)
})

test('a backup steps back before its disk is full and returns with ample room; a primary hands over only to room', () => {
  const usual: DiskSituation = {
    room: 'critical',
    role: 'backup',
    peerRoom: 'ample',
    triedAgoMs: Number.POSITIVE_INFINITY,
    stepsBack: false,
  }
  const rows: [Partial<DiskSituation>, ReturnType<typeof diskAction>][] = [
    [{}, 'stepBack'],
    [{ stepsBack: true }, 'none'],
    [{ stepsBack: true, room: 'low' }, 'none'],
    [{ stepsBack: true, room: 'ample' }, 'return'],
    [{ room: 'low' }, 'none'],
    [{ room: 'unknown' }, 'none'],
    [{ role: 'primary' }, 'switchover'],
    [{ role: 'primary', peerRoom: 'low' }, 'none'],
    [{ role: 'primary', peerRoom: 'unknown' }, 'none'],
    [{ role: 'primary', triedAgoMs: switchoverPauseMs - 1 }, 'none'],
    [{ role: 'primary', stepsBack: true }, 'return'],
    [{ role: 'unsettled' }, 'none'],
  ]
  for (const [part, action] of rows) assert.equal(diskAction({ ...usual, ...part }), action, JSON.stringify(part))
})

test('a server that ended for want of space is told from one whose volume failed', () => {
  const rows: [string, { ioError: boolean; full: boolean }][] = [
    ['PANIC:  could not write to file "pg_wal/xlogtemp.1": No space left on device', { ioError: false, full: true }],
    ['FATAL:  could not extend file "base/5/1": No space left on device', { ioError: false, full: true }],
    ['ERROR:  could not extend file "base/5/1": No space left on device', { ioError: false, full: false }],
    ['PANIC:  could not fsync file "base/5/1": Input/output error', { ioError: true, full: false }],
    ['PANIC:  could not fsync file "base/5/1": Bad file descriptor', { ioError: true, full: false }],
    ['FATAL:  could not write lock file "postmaster.pid": Read-only file system', { ioError: true, full: false }],
    ['LOG:  checkpoint complete', { ioError: false, full: false }],
  ]
  for (const [line, fault] of rows) assert.deepEqual(faultOf(line), fault, line)
})

test('a step back that the core did not take is asked for again after a pause, and so is the return', async () => {
  let freeMb = 10
  let isTaken = false
  const asked: string[] = []
  const guard = new DiskGuard({
    disk: { state: () => disks(freeMb), tick: () => {}, releaseReserve: async () => {} },
    freeDiskMb: 512,
    operator: async ({ command }) => {
      asked.push(command)
      return { command, ok: isTaken, why: '' }
    },
    alarm: () => {},
    note: () => {},
  })
  const ticks = async (fromMs: number, toMs: number): Promise<void> => {
    for (let now = fromMs; now < toMs; now += 100) {
      guard.tick(now, { role: 'backup', epoch: 1, peerRoom: 'ample', serverEndedFull: false })
      await null
    }
  }
  await ticks(0, 9_900)
  assert.deepEqual(asked, ['leave'])
  isTaken = true
  await ticks(9_900, 30_000)
  assert.deepEqual(asked, ['leave', 'leave'])
  freeMb = 900
  isTaken = false
  await ticks(30_000, 39_900)
  assert.deepEqual(asked.slice(2), ['stay'])
  isTaken = true
  await ticks(39_900, 60_000)
  assert.deepEqual(asked.slice(2), ['stay', 'stay'])
})
