/** One emulated machine: it is switched on, does what it is told, and loses its power. */

import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, readFileSync, rmSync } from 'node:fs'
import { connect, type Socket } from 'node:net'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { run } from '../../infra/lab/exec.ts'
import type { Image } from './image.ts'

/** A cable between the two: a port of our loopback for each end. */
export type Wire = readonly [a: number, b: number]

export interface Answer {
  code: number | null
  stdout: string
  stderr: string
}

/**
 * On a busy host the kernel's check of its timer interrupt fails for want of processor time, and it panics; and a panic is
 * to end the machine, so that whoever waits for it is told.
 */
const kernelWords = [
  ...['console=ttyS0', 'root=/dev/vda', 'rw', 'mitigations=off', 'no_timer_check', 'panic=-1'],
  ...['systemd.show_status=1', 'net.ifnames=0'],
]

/** Emulated, on a machine that does other things as well, beside a machine whose agent takes a processor of its own. */
export const bootLimitMs = 15 * 60_000
const commandLimitMs = 4 * 60_000
const memoryMb = 1024

export class Machine {
  readonly name: 'a' | 'b'
  readonly #folder: string
  readonly #image: Image
  readonly #wires: readonly Wire[]
  #qemu: ChildProcess | null = null
  #port: Socket | null = null
  #waiting = new Map<number, (answer: Answer) => void>()
  #nextId = 1
  #ready: (() => void) | null = null

  constructor(options: { name: 'a' | 'b'; folder: string; image: Image; wires: readonly Wire[] }) {
    this.name = options.name
    this.#folder = options.folder
    this.#image = options.image
    this.#wires = options.wires
  }

  get consolePath(): string {
    return join(this.#folder, `${this.name}.console`)
  }

  /** Resolves when it takes commands. */
  async switchOn(): Promise<void> {
    const disk = join(this.#folder, `${this.name}.img`)
    if (!existsSync(disk)) await run('cp', ['--sparse=always', this.#image.disk, disk])
    const socket = join(this.#folder, `${this.name}.sock`)
    rmSync(socket, { force: true })
    const qemu = spawn('qemu-system-x86_64', this.#arguments({ disk, socket }), {
      stdio: ['ignore', 'ignore', 'inherit'],
    })
    this.#qemu = qemu
    // Nothing of it outlives the test.
    process.once('exit', () => qemu.kill('SIGKILL'))
    const ready = new Promise<void>(resolve => {
      this.#ready = resolve
    })
    const ended = once(qemu, 'exit').then(() => 'ended' as const)
    while (!existsSync(socket) && qemu.exitCode === null) await sleep(50)
    this.#port = connect(socket)
    this.#port.setEncoding('utf8')
    this.#port.on('error', () => {})
    let rest = ''
    this.#port.on('data', (text: string) => {
      const lines = (rest + text).split('\n')
      rest = lines.pop() ?? ''
      for (const line of lines) this.#hear(line)
    })
    const first = await Promise.race([ready, ended, sleep(bootLimitMs, 'late' as const, { ref: false })])
    if (first !== undefined) throw new Error(`machine ${this.name} did not boot (${first}):\n${this.lastWords()}`)
  }

  #arguments({ disk, socket }: { disk: string; socket: string }): string[] {
    const mac = (wire: number): string => `52:54:00:90:0${wire}:0${this.name === 'a' ? 1 : 2}`
    // Datagrams: a cable is still one after the machine at its other end was off.
    const cable = ([a, b]: Wire): string => {
      const [own, other] = this.name === 'a' ? [a, b] : [b, a]
      const end = (which: 'local' | 'remote', port: number): string =>
        `${which}.type=inet,${which}.host=127.0.0.1,${which}.port=${port}`
      return `dgram,${end('local', own)},${end('remote', other)}`
    }
    const backends = ['user', ...this.#wires.map(cable)]
    return [
      ['-machine', 'q35', '-accel', 'tcg,thread=multi,tb-size=512', '-cpu', 'max', '-m', `${memoryMb}`, '-smp', '1'],
      ['-display', 'none', '-monitor', 'none', '-no-reboot', '-nodefaults', '-serial', `file:${this.consolePath}`],
      ['-kernel', this.#image.kernel, '-initrd', this.#image.initrd],
      ['-append', [...kernelWords, `systemd.hostname=${this.name}`, `understudy.node=${this.name}`].join(' ')],
      // What the guest flushed is in the kernel of this machine, and outlives the process.
      ['-drive', `file=${disk},format=raw,if=virtio,cache=writeback`],
      // Without the ROM that would look for a network to boot from.
      ...backends.map((backend, at) => [
        ...['-netdev', `${backend},id=net${at}`],
        ...['-device', `virtio-net-pci,netdev=net${at},mac=${mac(at)},romfile=`],
      ]),
      ['-device', 'i6300esb', '-action', 'watchdog=reset'],
      ['-device', 'virtio-serial', '-chardev', `socket,id=commands,path=${socket},server=on,wait=off`],
      ['-device', 'virtserialport,chardev=commands,name=commands'],
    ].flat()
  }

  #hear(line: string): void {
    const said = JSON.parse(line) as Answer & { id?: number; ready?: true }
    if (said.ready === true) this.#ready?.()
    else if (said.id !== undefined) this.#waiting.get(said.id)?.(said)
  }

  async run(argv: readonly string[], options: { input?: string; limitMs?: number } = {}): Promise<Answer> {
    const { input = '', limitMs = commandLimitMs } = options
    const id = this.#nextId++
    const answer = new Promise<Answer>(resolve => this.#waiting.set(id, resolve))
    this.#port?.write(`${JSON.stringify({ id, argv, input, limitMs })}\n`)
    const late = sleep(limitMs + 30_000, null, { ref: false })
    const first = await Promise.race([answer, late])
    this.#waiting.delete(id)
    if (first === null)
      throw new Error(`machine ${this.name} did not answer to ${argv.join(' ')}:\n${this.lastWords()}`)
    return first
  }

  /** @throws if the command fails */
  async must(...argv: string[]): Promise<string> {
    const { code, stdout, stderr } = await this.run(argv)
    if (code !== 0) throw new Error(`${argv.join(' ')} on ${this.name} ended with ${code}: ${stdout}${stderr}`)
    return stdout
  }

  async write(path: string, text: string): Promise<void> {
    const { code, stderr } = await this.run(['sh', '-c', 'mkdir -p "$(dirname "$0")" && cat > "$0"', path], {
      input: text,
    })
    if (code !== 0) throw new Error(stderr)
  }

  /** Like pulling the plug: nothing in the guest gets to know. */
  async powerCut(): Promise<void> {
    this.#qemu?.kill('SIGKILL')
    await this.untilOff()
  }

  /** Resolves when the machine has ended by itself: a shutdown, or a reset. */
  async untilOff(limitMs = commandLimitMs): Promise<void> {
    const qemu = this.#qemu
    if (qemu === null) return
    if (qemu.exitCode === null && qemu.signalCode === null) {
      const ended = await Promise.race([once(qemu, 'exit'), sleep(limitMs, null, { ref: false })])
      if (ended === null)
        throw new Error(`machine ${this.name} is still on after ${limitMs / 1000} s:\n${this.lastWords()}`)
    }
    this.#qemu = null
    this.#port?.destroy()
  }

  /** In an orderly way, and on again. */
  async reboot(): Promise<void> {
    // It ends before it can answer.
    void this.run(['systemctl', 'reboot']).catch(() => {})
    await this.untilOff()
    await this.switchOn()
  }

  lastWords(lines = 30): string {
    return existsSync(this.consolePath)
      ? readFileSync(this.consolePath, 'utf8').split('\n').slice(-lines).join('\n')
      : ''
  }
}

/** Looks once a second: each look is a program that is started on an emulated processor. */
export async function until<T>(words: string, look: () => Promise<T | null>, limitMs = 10 * 60_000): Promise<T> {
  for (const end = performance.now() + limitMs; performance.now() < end; await sleep(1000)) {
    const found = await look()
    if (found !== null) return found
  }
  throw new Error(`not so after ${limitMs / 1000} s: ${words}`)
}
