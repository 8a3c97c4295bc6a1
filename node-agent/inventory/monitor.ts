import { type ChildProcess, spawn } from 'node:child_process'

/** Tells of each change of links, addresses and routes (ip-monitor(8)); one child for as long as it lives. */
export class NetworkMonitor {
  readonly #changed: () => void
  #child: ChildProcess | null = null
  #again: NodeJS.Timeout | null = null
  #closed = false

  constructor(changed: () => void) {
    this.#changed = changed
    this.#start()
  }

  close(): void {
    this.#closed = true
    if (this.#again !== null) clearTimeout(this.#again)
    this.#child?.kill('SIGKILL')
  }

  #start(): void {
    const child = spawn('ip', ['-oneline', 'monitor', 'link', 'address', 'route'], {
      stdio: ['ignore', 'pipe', 'ignore'],
    })
    this.#child = child
    // What it says does not matter: it is read so that its pipe does not fill.
    child.stdout.on('data', () => this.#changed())
    child.on('error', () => {})
    child.on('close', () => {
      if (this.#closed) return
      // What happened meanwhile is not known.
      this.#again = setTimeout(() => {
        this.#changed()
        this.#start()
      }, againMs)
    })
  }
}
const againMs = 10_000
