/**
 * The disk of an emulated machine: Debian with its own kernel, this tree's agent, and a small program that runs commands
 * for the tests. Made anew for each run, since what it is made of changes; its packages come from Debian's mirror.
 */

import { spawn } from 'node:child_process'
import { chmodSync, copyFileSync, mkdirSync, readdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { run } from '../../infra/lab/exec.ts'
import { pinnedNode } from '../integration/support/booted.ts'

const root = join(import.meta.dirname, '../..')

/** What a machine boots from. */
export interface Image {
  kernel: string
  initrd: string
  /** Each machine gets a copy: what it writes has to outlive its reboot. */
  disk: string
}

const packages = [
  ['linux-image-amd64', 'systemd-sysv', 'udev', 'dbus', 'kmod', 'procps', 'initramfs-tools'],
  ['iproute2', 'iputils-ping', 'ifupdown', 'netplan.io', 'open-iscsi', 'tgt', 'postgresql-15'],
].flat()

/** For the disks and the network of the machine, and nothing else: an initrd of all drivers takes a minute more. */
const drivers = ['virtio_pci', 'virtio_blk', 'virtio_net', 'ext4', 'crc32c_generic']
const diskSize = '3G'
/** A mirror and 250 packages. */
const bootstrapLimitMs = 20 * 60_000
/** A gigabyte on a busy disk. */
const copyLimitMs = 5 * 60_000

export async function makeImage(folder: string, say: (line: string) => void): Promise<Image> {
  const tree = join(folder, 'root')
  const tar = join(folder, 'root.tar')
  const began = performance.now()
  const lap = (): string => `${Math.round((performance.now() - began) / 1000)} s`
  const settings = join(folder, 'initramfs')
  mkdirSync(settings, { recursive: true })
  writeFileSync(join(settings, 'modules'), `${drivers.join('\n')}\n`)
  await command(
    'mmdebstrap',
    [
      '--variant=minbase',
      `--include=${packages.join(',')}`,
      '--aptopt=Acquire::Languages "none"',
      '--dpkgopt=path-exclude=/usr/share/doc/*',
      '--dpkgopt=path-exclude=/usr/share/man/*',
      '--dpkgopt=path-exclude=/usr/share/locale/*',
      `--essential-hook=mkdir -p "$1/etc/initramfs-tools/conf.d" && cp ${settings}/modules "$1/etc/initramfs-tools/" && echo MODULES=list > "$1/etc/initramfs-tools/conf.d/understudy"`,
      // Nothing of PostgreSQL is made or started before the agent does.
      '--essential-hook=mkdir -p "$1/etc/postgresql-common" && echo "create_main_cluster = false" > "$1/etc/postgresql-common/createcluster.conf"',
      'bookworm',
      tar,
    ],
    bootstrapLimitMs,
  )
  say(`Debian is there after ${lap()}`)
  mkdirSync(tree)
  await run('tar', ['--extract', '--file', tar, '--directory', tree], { deadlineMs: copyLimitMs })
  rmSync(tar)
  furnish(tree)
  const boot = join(tree, 'boot')
  const named = (start: string): string => join(boot, readdirSync(boot).find(name => name.startsWith(start)) ?? start)
  const image = { kernel: join(folder, 'vmlinuz'), initrd: join(folder, 'initrd'), disk: join(folder, 'disk.img') }
  copyFileSync(named('vmlinuz-'), image.kernel)
  copyFileSync(named('initrd.img-'), image.initrd)
  await run('mke2fs', ['-q', '-t', 'ext4', '-d', tree, image.disk, diskSize], { deadlineMs: copyLimitMs })
  rmSync(tree, { recursive: true, force: true })
  say(`the disk is made after ${lap()}`)
  return image
}

/** This tree's programs into a disk that was made before (debugfs(8), so that nothing is mounted). */
export async function refresh({ disk }: Image): Promise<void> {
  for (const [from, to] of ours) {
    const words = [`rm ${to}`, `write ${join(root, from)} ${to}`, `set_inode_field ${to} mode 0100755`]
    for (const request of words) await run('debugfs', ['-w', '-R', request, disk], { deadlineMs: copyLimitMs })
  }
}
const ours = [
  ['dist/understudy.mjs', '/usr/bin/understudy'],
  ['test/vm/commands.mjs', '/opt/commands.mjs'],
] as const

const command = (program: string, args: readonly string[], limitMs: number): Promise<void> =>
  new Promise((resolve, reject) => {
    const child = spawn(program, args, { stdio: ['ignore', 'ignore', 'pipe'], timeout: limitMs })
    let last = ''
    child.stderr.on('data', (chunk: Buffer) => {
      last = (last + chunk.toString()).slice(-2000)
    })
    child.on('error', reject)
    child.on('close', code => (code === 0 ? resolve() : reject(new Error(`${program} ended with ${code}: ${last}`))))
  })

const lan = (node: 'a' | 'b'): string => `[Match]
Name=eth1
KernelCommandLine=understudy.node=${node}
[Network]
Address=10.90.0.${node === 'a' ? 1 : 2}/24
KeepConfiguration=yes
`
const toTheWitness = `[Match]
Name=eth0
[Network]
Address=10.0.2.15/24
`
const commandsUnit = `[Unit]
Description=Commands of the test
After=dev-virtio\\x2dports-commands.device
[Service]
ExecStart=/usr/local/bin/node /opt/commands.mjs
Restart=always
RestartSec=1
OOMScoreAdjust=-900
[Install]
WantedBy=multi-user.target
`

/** Units that make a boot longer and that nobody needs here. */
const masked = ['systemd-networkd-wait-online.service', 'apt-daily.timer', 'apt-daily-upgrade.timer', 'tgt.service']

function furnish(tree: string): void {
  const put = (path: string, text: string): void => {
    mkdirSync(join(tree, path, '..'), { recursive: true })
    writeFileSync(join(tree, path), text)
  }
  const enable = (unit: string, from = `/lib/systemd/system/${unit}`): void => {
    const wants = join(tree, 'etc/systemd/system/multi-user.target.wants')
    mkdirSync(wants, { recursive: true })
    rmSync(join(wants, unit), { force: true })
    symlinkSync(from, join(wants, unit))
  }
  for (const node of ['a', 'b'] as const) put(`etc/systemd/network/10-lan-${node}.network`, lan(node))
  put('etc/systemd/network/10-witness.network', toTheWitness)
  put('etc/fstab', '/dev/vda / ext4 defaults 0 1\n')
  put('etc/systemd/system/commands.service', commandsUnit)
  enable('commands.service', '/etc/systemd/system/commands.service')
  enable('systemd-networkd.service')
  for (const unit of masked) {
    rmSync(join(tree, 'etc/systemd/system', unit), { force: true })
    symlinkSync('/dev/null', join(tree, 'etc/systemd/system', unit))
  }
  copyFileSync(pinnedNode(), join(tree, 'usr/local/bin/node'))
  for (const [from, to] of ours) copyFileSync(join(root, from), join(tree, to))
  for (const program of ['usr/local/bin/node', 'usr/bin/understudy']) chmodSync(join(tree, program), 0o755)
  copyFileSync(join(root, 'infra/systemd/understudy.service'), join(tree, 'etc/systemd/system/understudy.service'))
  put('etc/machine-id', '')
}
