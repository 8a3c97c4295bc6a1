import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { mkdirSync, mkdtempSync, rmSync, statSync, symlinkSync, truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, afterEach, before, test } from 'node:test'
import { isDeepStrictEqual } from 'node:util'
import { sessionUsers } from '../../node-agent/storage/session-users.ts'
import { Sysfs } from '../../node-agent/storage/sysfs.ts'
import { until } from '../fixtures/until.ts'
import { fakeSysfs } from '../unit/hosts/fake-sysfs.ts'

/**
 * Who uses a disk, asked of the real kernel: a loop device stands for the disk of an iSCSI session, which no container can
 * log in to. Only where it is in sysfs is made up.
 */
const folder = mkdtempSync('/var/tmp/understudy-session-users-')
const tree = fakeSysfs(`
  sys/block/sdd -> sys/devices/platform/host5/session1/target5:0:0/5:0:0:1/block/sdd
  sys/devices/platform/host5/session1/target5:0:0/5:0:0:1/block/sdd/size = 16384
`)
let loop = ''
const children: ChildProcess[] = []

before(() => {
  const image = join(folder, 'disk')
  writeFileSync(image, '')
  truncateSync(image, 8 * 2 ** 20)
  execFileSync('mkfs.ext4', ['-q', '-F', image])
  loop = execFileSync('losetup', ['--find', '--show', image], { encoding: 'utf8' }).trim()
  const { rdev } = statSync(loop)
  const place = join(tree.root, 'sys/class/block/sdd')
  mkdirSync(place, { recursive: true })
  writeFileSync(join(place, 'dev'), `${rdev >> 8}:${rdev & 0xff}\n`)
  mkdirSync(join(tree.root, 'dev'))
  symlinkSync(loop, join(tree.root, 'dev/sdd'))
  symlinkSync('/proc', join(tree.root, 'proc'))
})
afterEach(async () => {
  for (const child of children.splice(0)) await ended(child)
})
after(() => {
  execFileSync('losetup', ['--detach', loop])
  tree.remove()
  rmSync(folder, { recursive: true, force: true })
})

async function ended(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return
  const gone = new Promise(resolve => child.once('exit', resolve))
  child.kill('SIGKILL')
  await gone
}

/** Says "ready" when it has done what it is to do, and stays. */
async function program(command: string, ...args: string[]): Promise<ChildProcess> {
  const child = spawn(command, args, { stdio: ['pipe', 'pipe', 'inherit'] })
  children.push(child)
  await new Promise<void>((resolve, reject) => {
    child.stdout?.once('data', () => resolve())
    child.once('exit', code => reject(new Error(`${command} ended with ${code}`)))
  })
  return child
}
const users = () => sessionUsers(new Sysfs(tree.root)).map(use => `${use.session}: ${use.what}`)
/** Other tests' losetup(8) looks into every loop device for a moment. */
const usersAre = (...wanted: string[]) => until(() => isDeepStrictEqual(users(), wanted))

test('a disk that nobody uses is nobody’s', async () => {
  await usersAre()
})

test('a program that has the disk itself open is named', async () => {
  const child = await program('sh', '-c', 'exec 7< "$0"; echo ready; read line', loop)
  await usersAre(`session1: sdd (opened by sh, process ${child.pid})`)
})

test('a file system that is mounted in another mount namespace alone is seen, and for whom', async () => {
  const point = join(folder, 'data')
  mkdirSync(point)
  const child = await program(
    'unshare',
    '--mount',
    '--propagation',
    'private',
    'sh',
    '-c',
    'mount "$0" "$1" && echo ready && read line',
    loop,
    point,
  )
  await usersAre(`session1: sdd (mounted on ${point} for sh)`)
  await ended(child)
  await usersAre()
})

test('whoever has it for himself and is not seen is in the way all the same', async () => {
  const point = join(folder, 'gone')
  mkdirSync(point)
  // Its last mount is gone, its working directory keeps the file system.
  await program(
    'unshare',
    '--mount',
    '--propagation',
    'private',
    'sh',
    '-c',
    'mount "$0" "$1" && cd "$1" && umount --lazy "$1" && echo ready && read line',
    loop,
    point,
  )
  await usersAre('session1: sdd (the kernel says that somebody has it for himself)')
})
