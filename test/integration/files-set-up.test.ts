import assert from 'node:assert/strict'
import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { after, afterEach, before, describe, test } from 'node:test'
import { type Config, parseConfig } from '../../node-agent/config.ts'
import { showFault } from '../../node-agent/config-faults.ts'
import { mountAt } from '../../node-agent/files/mounts.ts'
import { readPartitionRecord } from '../../node-agent/files/partition-record.ts'
import { heldTrees, prepareTrees, type TreesSetUp, treeFaults } from '../../node-agent/files/set-up-check.ts'
import type { PartitionConfig } from '../../node-agent/files/settings.ts'
import { encodeRecord } from '../../node-agent/state-file/record.ts'
import { stateFormat } from '../../node-agent/state-file/state-file.ts'
import { newDurable } from '../../shared/protocol/durable.ts'
import { otherNode } from '../../shared/protocol/nodes.ts'
import { unmountLoop } from '../fixtures/loop-disk.ts'
import { exampleConfig } from '../unit/example-config.ts'

/** Real loop devices and file systems. */

const whyNot = existsSync('/dev/loop-control') ? false : 'this machine has no loop devices'
const mebibyte = 2 ** 20
const sizeMb = 32

describe('the set-up of a tree on a partition of its own', { skip: whyNot }, () => {
  let home = ''
  let device = ''
  const tree = (): string => join(home, 'data')
  const image = (): string => join(home, 'data.img')
  const setUp: TreesSetUp = { part: 'begins', resumed: false, erase: null, other: [] }
  const begun: ChildProcess[] = []

  before(() => {
    home = mkdtempSync('/var/tmp/understudy-set-up-')
    writeFileSync(join(home, 'disk'), '')
    truncateSync(join(home, 'disk'), sizeMb * mebibyte)
    device = execFileSync('losetup', ['--find', '--show', join(home, 'disk')], { encoding: 'utf8' }).trim()
  })
  afterEach(async () => {
    for (const child of begun.splice(0)) child.kill('SIGKILL')
    if (mountAt(tree()) !== null) await unmount()
    for (const name of ['data', 'data.img', 'state']) rmSync(join(home, name), { recursive: true, force: true })
  })
  after(() => {
    execFileSync('losetup', ['--detach', device])
    rmSync(home, { recursive: true, force: true })
  })

  function config(partition: Partial<PartitionConfig> | null = { source: image(), sizeMb }): Config {
    const trees = [{ name: 'data', path: tree(), ...(partition === null ? {} : { partition }) }]
    const wanted = { ...exampleConfig, stateDir: join(home, 'state'), sync: { port: 7401, trees } }
    return parseConfig(JSON.stringify({ ...wanted, limits: { freeDiskMb: 16 } }), 'this test')
  }
  const faults = async (of: Config, how: Partial<TreesSetUp> = {}): Promise<string> =>
    (await treeFaults(of, { ...setUp, ...how })).map(showFault).join('\n')
  const unmount = (): Promise<void> => unmountLoop(tree(), image())
  const uuid = (): string | undefined => readPartitionRecord(join(home, 'state'), 'data')?.uuid

  test('a file of the size asked for is made, holds a file system, and is mounted; a second time nothing is made', async () => {
    assert.equal(await faults(config()), '')
    await prepareTrees(config(), () => undefined)
    assert.ok(mountAt(tree()) !== null)
    const { size, blocks } = statSync(image())
    assert.equal(size, sizeMb * mebibyte)
    assert.ok(blocks * 512 >= size, 'a file with holes would promise space that is not there')
    writeFileSync(join(tree(), 'kept'), 'by the next run')
    assert.equal(await faults(config()), '')
    await prepareTrees(config(), () => undefined)
    assert.equal(readFileSync(join(tree(), 'kept'), 'utf8'), 'by the next run')
    // As after a boot: it is there and not mounted.
    await unmount()
    await prepareTrees(config(), () => undefined)
    assert.equal(readFileSync(join(tree(), 'kept'), 'utf8'), 'by the next run')
  })

  test('a set-up that is interrupted before any of its steps is gone on with by the next one', async () => {
    for (let steps = 0; ; steps += 1) {
      let left = steps
      const interrupted = await prepareTrees(config(), () => {
        if (left === 0) throw new Error('the power went')
        left -= 1
      }).then(
        () => false,
        () => true,
      )
      const begunUuid = uuid()
      assert.equal(await faults(config()), '', `after ${steps} steps`)
      await prepareTrees(config(), () => undefined)
      assert.ok(mountAt(tree()) !== null)
      if (begunUuid !== undefined) assert.equal(uuid(), begunUuid)
      await unmount()
      for (const name of ['data', 'data.img', 'state']) rmSync(join(home, name), { recursive: true, force: true })
      if (!interrupted) return assert.equal(steps, 4)
    }
  })

  test('a device is taken only when it is empty, or given up by its name', async () => {
    const wanted = config({ source: device })
    execFileSync('mkfs.ext4', ['-q', '-F', '-L', 'photos', device])
    assert.match(
      await faults(wanted),
      /source "\S+" is not empty: it holds ext4, labelled photos; name an empty device; if .* --erase/,
    )
    assert.equal(await faults(wanted, { erase: device }), '')
    assert.match(await faults(wanted, { erase: '/dev/other' }), /--erase "\/dev\/other" is the partition of no tree/)
    execFileSync('wipefs', ['-qa', device])
    assert.match(await faults(wanted), /is not empty: there is data at \d+ bytes/)
    writeFileSync(device, Buffer.alloc(sizeMb * mebibyte))
    assert.equal(await faults(wanted), '')
    assert.match(await faults(config({ source: device, sizeMb: 64 })), /has 32 MiB, and sizeMb asks for 64/)
    await prepareTrees(wanted, () => undefined)
    writeFileSync(join(tree(), 'kept'), 'x')
    await unmount()
    await prepareTrees(wanted, () => undefined)
    assert.ok(existsSync(join(tree(), 'kept')), 'what was made once is never made again')
  })

  test('a device that is in use is never taken, not even by its name', async () => {
    execFileSync('mkfs.ext4', ['-q', '-F', device])
    const elsewhere = join(home, 'elsewhere')
    mkdirSync(elsewhere)
    execFileSync('mount', [device, elsewhere])
    try {
      assert.match(await faults(config({ source: device }), { erase: device }), /is in use: mounted, or part of/)
    } finally {
      execFileSync('umount', [elsewhere])
      rmSync(elsewhere, { recursive: true })
    }
  })

  test('what is not free, not empty, in use, or not there any more is refused before anything is changed', async () => {
    assert.match(
      await faults(config({ source: image(), sizeMb: 50_000_000 })),
      /needs 50000000 MiB, with 16 left beside it, and \d+ MiB are free in /,
    )
    assert.match(await faults(config({ source: image() })), /is no block device .*, and sizeMb does not say how large/)
    writeFileSync(image(), 'somebody’s')
    assert.match(await faults(config()), /data\.img" is a file already; name a file that is not there yet/)
    rmSync(image())
    mkdirSync(tree())
    writeFileSync(join(tree(), 'hidden'), '')
    assert.match(await faults(config()), /data" is not empty \(hidden\), and the partition would hide that/)
    rmSync(join(tree(), 'hidden'))
    const user = spawn('sleep', ['60'], { cwd: tree(), stdio: 'ignore' })
    begun.push(user)
    assert.match(await faults(config()), new RegExp(`has files open by sleep \\(${user.pid}\\); stop them`))
    user.kill('SIGKILL')
    await new Promise(resolve => user.once('exit', resolve))
    assert.equal(uuid(), undefined, 'nothing was begun')
    await prepareTrees(config(), () => undefined)
    assert.match(
      await faults(config({ source: `${image()}2`, sizeMb })),
      /is not \S+data\.img, from which this host made/,
    )
    await unmount()
    rmSync(image())
    assert.match(await faults(config()), /was made for tree data, and is not there now; put it back/)
  })

  test('below a tree that is added nobody may have files open on the backup, whose copy is replaced, and anybody on the primary', async () => {
    const wanted = config(null)
    const other = otherNode(wanted.node)
    mkdirSync(tree())
    mkdirSync(join(home, 'state', 'files'), { recursive: true })
    const user = spawn('sleep', ['60'], { cwd: tree(), stdio: 'ignore' })
    begun.push(user)
    const isNamed = new RegExp(`has files open by sleep \\(${user.pid}\\); stop them: this host’s copy is replaced`)
    const knownPrimary = (primary: 'a' | 'b'): void => {
      const value = { gen: 1, version: 2, epoch: 1, primary, successor: true, voters: { a: 'i-a', b: 'i-b', w: 'i-w' } }
      const durable = { ...newDurable('i'), known: { ballot: 1, value } }
      writeFileSync(join(home, 'state', 'state'), encodeRecord(stateFormat, durable))
    }
    const adds = { part: 'adds' } as const
    knownPrimary(wanted.node)
    assert.equal(await faults(wanted, adds), '')
    knownPrimary(other)
    assert.match(await faults(wanted, adds), isNamed)
    // Replicated already: its own worker is among them.
    writeFileSync(join(home, 'state', 'files', 'data.json'), '{}')
    assert.equal(await faults(wanted, adds), '')
  })

  test('what the host that begins holds has to fit on the one that joins', async () => {
    mkdirSync(tree())
    writeFileSync(join(tree(), 'large'), Buffer.alloc(3 * mebibyte, 1))
    const [held] = await heldTrees(config(null))
    assert.ok(held !== undefined && held.usedBytes >= 3 * mebibyte)
    rmSync(join(tree(), 'large'))
    const joins = { part: 'joins' } as const
    assert.equal(await faults(config(null), { ...joins, other: [held] }), '')
    const much = { name: 'data', usedBytes: 1e17, partitionMb: null }
    assert.match(
      await faults(config(null), { ...joins, other: [much] }),
      /lies where \d+ MiB are free, and the other host’s copy holds/,
    )
    const other = [{ name: 'data', usedBytes: 100 * mebibyte, partitionMb: null }]
    assert.match(
      await faults(config(), { ...joins, other }),
      /sizeMb 32 has no room for the 100 MiB that the other host’s copy/,
    )
    const larger = [{ name: 'data', usedBytes: 0, partitionMb: 64 }]
    assert.match(
      await faults(config(), { ...joins, other: larger }),
      /sizeMb 32 is smaller than the other host’s partition of 64 MiB/,
    )
  })
})
