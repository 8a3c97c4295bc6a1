import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import {
  appendFileSync,
  chmodSync,
  closeSync,
  existsSync,
  linkSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { recover } from '../../node-agent/files/recovery.ts'
import { Tree } from '../../node-agent/files/tree.ts'
import { WorkFolder } from '../../node-agent/files/work-folder.ts'
import type { FilesPair } from '../fixtures/files-pair.ts'
import { filesScene, writeWhole } from '../fixtures/files-scene.ts'
import { LoopDisk } from '../fixtures/loop-disk.ts'

/** What is on the backup's disk, and not only in its memory: its image is copied as it is, and mounted as after a boot. */

const scene = filesScene()
const skip = existsSync('/dev/loop-control') ? false : 'this machine has no loop devices'
const mebibyte = 2 ** 20

async function onJournal(): Promise<{ it: FilesPair; disk: LoopDisk }> {
  const it = await scene.made()
  const disk = new LoopDisk({ sizeMb: 64, backedMb: 160, journal: 'journal' })
  scene.atEnd(() => disk.remove())
  scene.mount('b', ...disk.mountArguments)
  await it.startBoth()
  await it.barrier('a')
  return { it, disk }
}

function expectSame(it: FilesPair, root: string, when: string): void {
  const args = ['-nacXAHi', '--delete', '--numeric-ids', '--exclude=/.understudy-sync', `${it.path('a')}/`, `${root}/`]
  const { stdout, stderr, status } = spawnSync('rsync', args, { encoding: 'latin1' })
  assert.equal(status, 0, stderr)
  assert.equal(stdout, '', `${when}, the disk lacks what the barrier promised`)
}

test('whatever a barrier has acknowledged is on the disk that a power cut leaves, of each kind of change', {
  skip,
}, async () => {
  const { it, disk } = await onJournal()
  const at = (...names: string[]): string => it.path('a', ...names)
  const changes: Record<string, () => void> = {
    'some files': () => {
      mkdirSync(at('d/e'), { recursive: true })
      for (const name of ['f', 'd/g', 'd/e/h']) writeFileSync(at(name), name)
      writeFileSync(at('large'), Buffer.alloc(3 * mebibyte, 1))
    },
    'many files': () => {
      for (let i = 0; i < 60; i += 1) writeFileSync(at('d', `many${i}`), `${i}`)
    },
    'a patch': () => {
      const fd = openSync(at('large'), 'r+')
      writeSync(fd, Buffer.alloc(5000, 2), 0, 5000, mebibyte)
      closeSync(fd)
      appendFileSync(at('large'), 'more')
    },
    attributes: () => chmodSync(at('d/g'), 0o600),
    'the root’s own attributes': () => chmodSync(at(), 0o751),
    'a removed file': () => rmSync(at('f')),
    'names of a file': () => {
      linkSync(at('d/g'), at('d/e/second'))
      symlinkSync('nowhere', at('link'))
    },
    'a renamed directory': () => renameSync(at('d'), at('moved')),
    'a removed directory': () => rmSync(at('moved/e'), { recursive: true }),
    'a file where a directory was': () => {
      rmSync(at('moved'), { recursive: true })
      writeFileSync(at('moved'), '')
    },
  }
  for (const [what, change] of Object.entries(changes)) {
    change()
    await it.barrier('a')
    await disk.afterPowerCut(root => expectSame(it, root, `after ${what}`))
  }
})

test('what a receiver had done when it was killed is on the disk before anything is promised about it', {
  skip,
}, async () => {
  const { it, disk } = await onJournal()
  for (const name of ['kept', 'removed', 'renamed']) writeFileSync(it.path('a', name), name)
  await it.barrier('a')
  await it.host('b').kill()
  // As the receiver left it: done in memory, and the flush never came.
  for (const host of ['a', 'b'] as const) {
    rmSync(it.path(host, 'removed'))
    renameSync(it.path(host, 'renamed'), it.path(host, 'under another name'))
  }
  await it.start('b')
  await it.role('b', { role: 'backup', epoch: 1 })
  await it.barrier('a')
  await disk.afterPowerCut(root => expectSame(it, root, 'after the receiver’s start'))
})

test('a power cut at any moment leaves whole versions, once what it interrupted is finished', { skip }, async () => {
  const { it, disk } = await onJournal()
  const small = 40_000
  const large = 2 * mebibyte
  writeFileSync(it.path('a', 'large'), Buffer.alloc(large, 1))
  await it.barrier('a')
  for (let round = 2; round < 8; round += 1) {
    await it.barrier('a')
    // Who reads while it is written meets a mixture here, which is an honest version there.
    process.kill(it.host('a').pid, 'SIGSTOP')
    for (let i = 0; i < 20; i += 1) writeWhole(it, `f${i}`, Buffer.alloc(small, round))
    const fd = openSync(it.path('a', 'large'), 'r+')
    writeSync(fd, Buffer.alloc(large, round), 0, large, 0)
    closeSync(fd)
    process.kill(it.host('a').pid, 'SIGCONT')
    await sleep(round * 4)
    await disk.afterPowerCut(async root => {
      const tree = new Tree(root)
      const work = new WorkFolder(tree)
      try {
        await recover(tree, work, () => undefined)
        expectWholeVersions(root, { small, large })
        assert.deepEqual(
          readdirSync(work.path).filter(name => !name.startsWith('gone-')),
          [],
        )
      } finally {
        work.close()
        tree.close()
      }
    })
  }
})

function expectWholeVersions(root: string, { small, large }: { small: number; large: number }): void {
  for (const name of readdirSync(root)) {
    if (name.startsWith('.understudy') || name === 'lost+found') continue
    const content = readFileSync(join(root, name))
    assert.equal(content.length, name === 'large' ? large : small, `${name} is cut short`)
    assert.ok(content.equals(Buffer.alloc(content.length, content[0])), `${name} is a mixture of versions`)
  }
}
