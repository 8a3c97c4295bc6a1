import assert from 'node:assert/strict'
import { existsSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { DiskSpace, reserveMbOf, volumePaths, volumesAt } from '../../node-agent/disk/space.ts'
import { until } from '../fixtures/until.ts'

const freeDiskMb = 32

test('the room of a disk is known before its reserve is written, and whoever only asks for it writes none', async t => {
  const root = mkdtempSync(join(tmpdir(), 'us-space-'))
  t.after(() => rmSync(root, { recursive: true }))
  const places = { dataDir: join(root, 'data'), stateDir: join(root, 'state') }
  for (const folder of [places.dataDir, places.stateDir]) mkdirSync(folder)
  const reserve = join(places.stateDir, 'understudy.reserve')

  const [volume] = await volumesAt(await volumePaths(places))
  assert.ok(volume !== undefined && volume.freeMb <= volume.totalMb)
  assert.equal(existsSync(reserve), false)

  const space = new DiskSpace({ ...places, freeDiskMb })
  await space.look()
  assert.equal(space.state().volumes.length, 1)
  assert.equal(space.state().reserveMb, 0)
  await until(() => space.state().reserveMb === reserveMbOf(freeDiskMb))
  assert.equal(existsSync(reserve), true)
  await space.releaseReserve()
  assert.equal(existsSync(reserve), false)
})
