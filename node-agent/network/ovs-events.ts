import { createConnection, type Socket } from 'node:net'
import { ovsColumns } from './ovs-json.ts'

/**
 * Has Open vSwitch's database say when something of its bridges, ports or interfaces becomes another (RFC 7047, 4.1.5
 * "Monitor", over the database's own socket, as ovs-vsctl(8) finds it). Counters, which move all the time, are not asked for.
 * What it says is not read: whoever looks asks for all of it. After one change nothing more is taken from the socket until
 * the next look, so that a host whose ports come and go all the time is woken once for each look; the database keeps the
 * rest back and puts it together.
 */
export interface OvsEventsOptions {
  /** For the first answer too: what was before it was not heard. */
  changed: () => void
  path?: string
}

/** A database that was there and has gone is being restarted, most of the time. */
const againMs = { first: 2000, most: 300_000 }
/** The answer to the question is one short line; an echo is a line too (4.1.11). */
const lineMax = 4096

export class OvsEvents {
  readonly #changed: () => void
  readonly #path: string
  #socket: Socket | null = null
  #answered = false
  #again: NodeJS.Timeout | null = null
  #waitMs = againMs.first
  #closed = false

  constructor({ changed, path = `${process.env.OVS_RUNDIR ?? '/var/run/openvswitch'}/db.sock` }: OvsEventsOptions) {
    this.#changed = changed
    this.#path = path
  }

  /** With each look: what comes from now on is new again. Where there is no Open vSwitch it does nothing. */
  attend(): void {
    if (this.#closed) return
    if (this.#socket !== null) {
      this.#socket.resume()
      return
    }
    this.#answered = false
    const socket = createConnection(this.#path)
    this.#socket = socket
    socket.unref()
    // A socket that ends says so with its end.
    socket.on('error', () => {})
    socket.once('connect', () => socket.write(JSON.stringify(question)))
    socket.on('data', chunk => this.#heard(socket, chunk))
    socket.once('close', () => this.#gone())
  }

  close(): void {
    this.#closed = true
    if (this.#again !== null) clearTimeout(this.#again)
    this.#socket?.destroy()
  }

  #heard(socket: Socket, chunk: Buffer): void {
    const line = chunk.length <= lineMax ? chunk.toString() : ''
    if (!this.#answered && !isGranted(line)) {
      // A database that has no such columns: the looks by the clock are left.
      socket.destroy()
      return
    }
    this.#answered = true
    this.#waitMs = againMs.first
    const echo = echoOf(line)
    if (echo !== null) {
      socket.write(echo)
      return
    }
    socket.pause()
    this.#changed()
  }

  #gone(): void {
    this.#socket = null
    if (!this.#answered && this.#waitMs === againMs.first) return // none was there
    if (this.#answered) this.#changed()
    this.#answered = false
    if (this.#closed) return
    this.#again = setTimeout(() => this.attend(), this.#waitMs).unref()
    this.#waitMs = Math.min(2 * this.#waitMs, againMs.most)
  }
}

const watched = (columns: string) => [
  { columns: columns.split(',').filter(name => name !== '_uuid'), select: { initial: false } },
]
const question = {
  id: 'understudy',
  method: 'monitor',
  params: [
    'Open_vSwitch',
    null,
    { Bridge: watched(ovsColumns.Bridge), Port: watched(ovsColumns.Port), Interface: watched(ovsColumns.Interface) },
  ],
}

function isGranted(line: string): boolean {
  const answer = parsed(line)
  return answer !== null && 'result' in answer && (answer.error ?? null) === null
}

/** What is answered to an echo; null: it is none. */
function echoOf(line: string): string | null {
  const asked = parsed(line)
  return asked?.method === 'echo' ? JSON.stringify({ id: asked.id, result: asked.params, error: null }) : null
}

function parsed(line: string): { [key: string]: unknown } | null {
  try {
    const value: unknown = JSON.parse(line)
    return typeof value === 'object' && value !== null ? { ...value } : null
  } catch {
    return null
  }
}
