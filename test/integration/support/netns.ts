/**
 * Network namespaces for tests: hosts of their own, joined by bridges. Needs root.
 *
 * Kernel drivers are used from the test itself: `ns.run(() => …)` moves this thread into the namespace for one
 * synchronous call, and sockets opened there stay there. Traffic and processes run in children (`ns.spawn`, `ns.peer`).
 */
import { type ChildProcess, execFileSync, type SpawnOptions, spawn } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, openSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import koffi from 'koffi'
import { Peer } from './peer.ts'

const setns = koffi.load('libc.so.6').func('int setns(int fd, int type)')
const CLONE_NEWNET = 0x40000000
const NODE = process.execPath

function ip(...args: string[]): string {
  return execFileSync('ip', args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] })
}

export class Netns {
  readonly name: string
  readonly #children = new Set<ChildProcess>()
  readonly #peers: Peer[] = []

  constructor(name: string) {
    this.name = name
    // A run that was killed leaves its namespaces behind.
    removeNamespace(name)
    ip('netns', 'add', name)
    this.exec('ip', 'link', 'set', 'lo', 'up')
    // Addresses are usable at once: duplicate detection would hold each IPv6 address back for a second or two.
    this.exec('sysctl', '-qw', 'net.ipv6.conf.all.accept_dad=0', 'net.ipv6.conf.default.accept_dad=0')
  }

  /** Runs a command to its end and returns what it wrote; throws if it fails. */
  exec(command: string, ...args: string[]): string {
    return ip('netns', 'exec', this.name, command, ...args)
  }

  /** Like `exec`, true where the command succeeded. */
  succeeds(command: string, ...args: string[]): boolean {
    try {
      this.exec(command, ...args)
      return true
    } catch {
      return false
    }
  }

  /** Starts a process in the namespace; it is killed by `remove`. Its pid is that of the command itself. */
  spawn(command: string, args: readonly string[], options: SpawnOptions = {}): ChildProcess {
    const child = spawn('ip', ['netns', 'exec', this.name, command, ...args], { stdio: 'inherit', ...options })
    this.#children.add(child)
    child.once('exit', () => this.#children.delete(child))
    return child
  }

  /** Starts a TypeScript file in the namespace. */
  node(file: string | URL, args: readonly string[] = [], options: SpawnOptions = {}): ChildProcess {
    const path = typeof file === 'string' ? file : fileURLToPath(file)
    return this.spawn(NODE, ['--disable-warning=ExperimentalWarning', path, ...args], options)
  }

  /** A child that opens, accepts and uses TCP connections on command. */
  async peer(): Promise<Peer> {
    const stdio: SpawnOptions = { stdio: ['ignore', 'inherit', 'inherit', 'ipc'] }
    const child = this.node(new URL('./peer-main.ts', import.meta.url), [], stdio)
    const peer = new Peer(child)
    this.#peers.push(peer)
    await peer.ready
    return peer
  }

  /** Runs a synchronous function with this thread inside the namespace. What it opens stays in the namespace. */
  run<T>(work: () => T): T {
    const home = openSync('/proc/thread-self/ns/net', 'r')
    const there = openSync(`/run/netns/${this.name}`, 'r')
    try {
      enter(there)
      return work()
    } finally {
      enter(home)
      closeSync(there)
      closeSync(home)
    }
  }

  /** Kills what was started here and deletes the namespace. */
  async remove(): Promise<void> {
    await Promise.all(
      [...this.#children].map(async child => {
        if (child.exitCode !== null || child.signalCode !== null) return
        const exited = once(child, 'exit')
        child.kill('SIGKILL')
        await exited
      }),
    )
    removeNamespace(this.name)
  }
}

function enter(fd: number): void {
  if (setns(fd, CLONE_NEWNET) !== 0) throw new Error(`setns failed with errno ${koffi.errno()}: are you root?`)
}

function removeNamespace(name: string): void {
  try {
    ip('netns', 'del', name)
  } catch {
    // There was none.
  }
}

export type Attachment = { ns: Netns; iface: string; mac?: string; addresses: readonly string[] }

/**
 * Joins namespaces by a bridge in a namespace of its own, so that the bridge's settings are not those of the machine.
 * Each attachment gets an interface with the addresses ("10.9.0.1/24", "fd09::1/64"), up when this returns.
 */
export function connectByBridge(options: { bridge: Netns; name: string; attachments: readonly Attachment[] }): void {
  const { bridge, name, attachments } = options
  bridge.exec('ip', 'link', 'add', 'name', name, 'type', 'bridge', 'stp_state', '0')
  bridge.exec('ip', 'link', 'set', name, 'up')
  for (const [i, { ns, iface, mac, addresses }] of attachments.entries()) {
    const port = `${name}p${i}`
    bridge.exec('ip', 'link', 'add', 'name', port, 'type', 'veth', 'peer', 'name', iface, 'netns', ns.name)
    bridge.exec('ip', 'link', 'set', port, 'master', name, 'up')
    if (mac !== undefined) ns.exec('ip', 'link', 'set', iface, 'address', mac)
    ns.exec('ip', 'link', 'set', iface, 'up')
    for (const address of addresses) {
      ns.exec('ip', 'address', 'add', address, 'dev', iface, ...(address.includes(':') ? ['nodad'] : []))
    }
  }
}

/** Tests of this kind need root and the tools; says why not, for `test(..., { skip })`. */
export function whyNoNamespaces(): string | false {
  if (process.getuid?.() !== 0) return 'network namespaces need root'
  try {
    execFileSync('ip', ['-V'], { stdio: 'ignore' })
  } catch {
    return 'iproute2 is not installed'
  }
  return false
}
