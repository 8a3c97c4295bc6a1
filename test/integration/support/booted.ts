/** Machines on which a real systemd runs as process 1, in namespaces of this one. Needs root and systemd's package. */

import { type ChildProcess, execFileSync, spawn, spawnSync } from 'node:child_process'
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmdirSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { until } from '../../fixtures/until.ts'

const SYSTEMD = '/lib/systemd/systemd'
const CGROUPS = ['/sys/fs/cgroup/unified', '/sys/fs/cgroup'].find(path => existsSync(join(path, 'cgroup.procs')))

/** Why such a machine can't be had here, for `skip`; false where it can. */
export function whyNoMachines(): string | false {
  if (process.getuid?.() !== 0) return 'a machine with its own systemd needs root'
  if (!existsSync(SYSTEMD)) return 'systemd is not installed'
  return CGROUPS === undefined ? 'there is no cgroup v2' : false
}

export class BootedMachine {
  readonly #home: string
  readonly #cgroup: string
  readonly #outer: ChildProcess
  #init = 0

  /**
   * @param name tells it from others of this run
   * @param disks paths of the machine that are on a disk rather than in memory
   */
  static async boot(options: { name: string; netns: string; disks: readonly string[] }): Promise<BootedMachine> {
    const machine = new BootedMachine(options)
    await until(async () => {
      machine.#init = machine.#findInit()
      return machine.#init !== 0 && machine.run(['systemctl', 'is-system-running']).stdout.trim() === 'running'
    })
    return machine
  }

  private constructor({ name, netns, disks }: { name: string; netns: string; disks: readonly string[] }) {
    // Its folders, and the files that are written into it, have the rights of an installation, whoever runs this.
    process.umask(0o022)
    this.#home = mkdtempSync(join(tmpdir(), `understudy-${name}-`))
    this.#cgroup = join(CGROUPS ?? '', `understudy-${name}-${process.pid}`)
    mkdirSync(this.#cgroup)
    const layer = join(this.#home, 'layer')
    mkdirSync(layer)
    const binds = disks.map((path, index) => {
      const folder = join(this.#home, `disk${index}`)
      mkdirSync(folder, { mode: 0o755 })
      return `${folder}:${path}`
    })
    const script = join(import.meta.dirname, 'boot-systemd')
    const namespaces = [
      '--pid',
      '--fork',
      '--kill-child',
      '--mount',
      '--uts',
      '--ipc',
      '--cgroup',
      '--propagation=private',
    ]
    const enter = 'echo $$ > "$1/cgroup.procs"; shift; exec "$@"'
    const command = ['nsenter', `--net=/run/netns/${netns}`, 'unshare', ...namespaces, script, layer, ...binds]
    this.#outer = spawn('sh', ['-c', enter, 'sh', this.#cgroup, ...command], { stdio: ['ignore', 'ignore', 'inherit'] })
  }

  /** Process 1 of the machine: the only child of `unshare`, once it has become systemd. */
  #findInit(): number {
    const { pid } = this.#outer
    try {
      const child = readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim()
      return readFileSync(`/proc/${child}/comm`, 'utf8').trim() === 'systemd' ? Number(child) : 0
    } catch {
      return 0
    }
  }

  get isOn(): boolean {
    return this.#outer.exitCode === null && this.#outer.signalCode === null
  }

  /** Runs a command on the machine, as root there. */
  run(command: readonly string[]): { code: number | null; stdout: string; stderr: string } {
    const argv = ['-t', String(this.#init), '--all', '--', ...command]
    const ran = spawnSync('nsenter', argv, { encoding: 'utf8', timeout: 60_000, cwd: '/' })
    return { code: ran.status, stdout: ran.stdout, stderr: ran.stderr }
  }

  /** As `run`, and throws where it fails. */
  must(...command: string[]): string {
    const { code, stdout, stderr } = this.run(command)
    if (code !== 0) throw new Error(`${command.join(' ')} ended with ${code}: ${stderr}${stdout}`)
    return stdout
  }

  write(path: string, text: string): void {
    writeFileSync(`/proc/${this.#init}/root${path}`, text)
  }

  read(path: string): string {
    return readFileSync(`/proc/${this.#init}/root${path}`, 'utf8')
  }

  /** A property of a unit, as `systemctl show` tells it. */
  property(unit: string, name: string): string {
    return this.must('systemctl', 'show', '--value', '-p', name, unit).trim()
  }

  /** Ends it, however it is, and leaves nothing. */
  async remove(): Promise<void> {
    if (existsSync(join(this.#cgroup, 'cgroup.kill'))) writeFileSync(join(this.#cgroup, 'cgroup.kill'), '1')
    while (this.isOn) await sleep(10)
    await until(async () => !readFileSync(join(this.#cgroup, 'cgroup.events'), 'utf8').includes('populated 1'))
    removeGroups(this.#cgroup)
    rmSync(this.#home, { recursive: true, force: true })
  }
}

function removeGroups(folder: string): void {
  for (const entry of readdirSync(folder, { withFileTypes: true }))
    if (entry.isDirectory()) removeGroups(join(folder, entry.name))
  rmdirSync(folder)
}

/** Copies a file to the machine. */
export function install(machine: BootedMachine, from: string, to: string): void {
  machine.must('install', '-D', '-m', '0755', from, to)
}

export const pinnedNode = (): string => execFileSync('realpath', [process.execPath], { encoding: 'utf8' }).trim()
