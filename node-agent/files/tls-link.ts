import type { AddressInfo } from 'node:net'
import { connect, createServer, type Server, type TLSSocket } from 'node:tls'
import { FrameSplitter, freeChunk } from './framing.ts'
import { type Answer, decodeFromReceiver, decodeFromSender, encode, type Hello, wireVersion } from './messages.ts'
import type { Outlet } from './outflow.ts'
import type { Receiver } from './receiver.ts'
import type { Sender } from './sender.ts'
import { Strangers } from './strangers.ts'

/**
 * The connection between the two hosts' workers: TLS 1.3 in which both show a certificate of the pair's authority with
 * the other one's name. The primary connects; one connection a tree.
 */
export interface TlsIdentity {
  keyPem: string
  certificatePem: string
  authorityPem: string
  /** Common name of the other host's certificate. */
  peerName: string
}

/** Silence after which a connection counts as cut; a sign of life goes every second. */
const silenceMs = 5000
const aliveEveryMs = 1000
const helloLimitMs = 5000
const reconnectMs = 250
/** Refused for good reasons that may pass (an epoch the other side has not heard of). */
const refusedRetryMs = 500
/** Strangers take no more descriptors than that: the trees need theirs. */
const connectionsMax = 1024
/** A starved process may take long for it; the other host gives up before. */
const handshakeLimitMs = 30_000
const roomLookMs = 5
/** What came is put together for so long before others have their turn. */
const readingMs = 8
const joinedBytesMax = 64 * 1024

/**
 * For how long nothing was heard. Asked each second; where that comes late it was this process that did not run, and what
 * arrived meanwhile is read first.
 */
class Silence {
  #heardMs = performance.now()
  #askedMs = performance.now()

  heard(): void {
    this.#heardMs = performance.now()
  }

  isOver(limitMs: number): boolean {
    const nowMs = performance.now()
    if (nowMs - this.#askedMs > 2 * aliveEveryMs) this.#heardMs = nowMs
    this.#askedMs = nowMs
    return nowMs - this.#heardMs > limitMs
  }
}

const tlsOptions = (identity: TlsIdentity) =>
  ({
    key: identity.keyPem,
    cert: identity.certificatePem,
    ca: identity.authorityPem,
    minVersion: 'TLSv1.3',
    // 128 bits are enough, and twice as fast on small processors.
    ciphers: 'TLS_AES_128_GCM_SHA256',
    rejectUnauthorized: true,
  }) as const

const isPeer = (socket: TLSSocket, identity: TlsIdentity): boolean =>
  socket.authorized && socket.getPeerCertificate().subject?.CN === identity.peerName

export type Admission =
  | { ok: true; receiver: Receiver; copy: string }
  | { ok: false; why: string; remedy: 'later' | 'never' }

export interface ServerPart {
  host: string
  port: number
  identity: TlsIdentity
  /** Decides whether this sender may write to the tree it names. */
  admit: (hello: Hello) => Admission
  note: (why: string) => void
}

/** The backup's end. */
export class LinkServer {
  readonly #part: ServerPart
  readonly #server: Server
  readonly #sockets = new Map<string, TLSSocket>()
  readonly #all = new Set<TLSSocket>()
  readonly #strangers: Strangers

  private constructor(part: ServerPart) {
    this.#part = part
    this.#strangers = new Strangers(part.note)
    const options = { ...tlsOptions(part.identity), requestCert: true, handshakeTimeout: handshakeLimitMs }
    this.#server = createServer(options, socket => this.#serve(socket))
    this.#server.maxConnections = connectionsMax
    this.#server.on('tlsClientError', error => this.#strangers.refused(error.message))
  }

  static async listen(part: ServerPart): Promise<LinkServer> {
    const link = new LinkServer(part)
    await new Promise<void>((resolve, reject) => {
      link.#server.once('error', reject)
      link.#server.listen(part.port, part.host, resolve)
    })
    return link
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port
  }

  /** Ends the connection over which a tree is written. */
  cut(tree: string): void {
    this.#sockets.get(tree)?.destroy()
    this.#sockets.delete(tree)
  }

  close(): void {
    for (const socket of this.#all) socket.destroy()
    this.#server.close()
  }

  #serve(socket: TLSSocket): void {
    const { identity, note } = this.#part
    socket.on('error', () => socket.destroy())
    if (!isPeer(socket, identity)) {
      this.#strangers.refused(`its certificate is not ${identity.peerName}'s`)
      socket.destroy()
      return
    }
    this.#all.add(socket)
    socket.on('close', () => this.#all.delete(socket))
    socket.setNoDelay(true)
    let receiver: Receiver | null = null
    let tree = ''
    const silence = new Silence()
    const early: Buffer[] = []
    let isOpening = false
    const watch = setInterval(() => {
      if (silence.isOver(receiver === null ? helloLimitMs : silenceMs)) socket.destroy()
    }, aliveEveryMs)
    socket.on('close', () => clearInterval(watch))
    const take = (frame: Buffer): void => {
      if (receiver === null) early.push(Buffer.from(frame))
      else receiver.receive(decodeFromSender(frame), frame.length)
    }
    const splitter = new FrameSplitter(frame => {
      if (isOpening) return take(frame)
      isOpening = true
      void this.#open(socket, frame).then(opened => {
        if (opened === null) return
        receiver = opened.receiver
        tree = opened.tree
        guarded(() => {
          for (const one of early.splice(0)) take(one)
        })
      })
    })
    const guarded = (work: () => void): void => {
      try {
        work()
      } catch (error) {
        const why = error instanceof Error ? error.message : String(error)
        note(`the connection for ${tree === '' ? 'files' : tree} is cut: ${why}`)
        socket.destroy()
      }
    }
    const turn = new ReadingTurn(socket)
    socket.on('data', chunk => {
      silence.heard()
      guarded(() => {
        if (splitter.push(chunk)) freeChunk(chunk)
        turn.look(receiver)
      })
    })
  }

  async #open(socket: TLSSocket, frame: Buffer): Promise<{ receiver: Receiver; tree: string } | null> {
    const reply = (answer: Answer): void => {
      socket.write(jsonFrame(answer))
      if (!answer.ok) socket.end()
    }
    const hello = parseHello(frame)
    if (hello === null) {
      reply({ ok: false, why: `version ${wireVersion} of the file log is spoken here`, remedy: 'never' })
      return null
    }
    const admitted = this.#part.admit(hello)
    if (!admitted.ok) {
      reply(admitted)
      return null
    }
    this.cut(hello.tree)
    this.#sockets.set(hello.tree, socket)
    const { receiver } = admitted
    const applied = await receiver.attach(hello, bytes => {
      if (!socket.destroyed) socket.write(bytes)
    })
    // A role may have changed, or another connection come, while the old one's work was finished.
    const again = this.#part.admit(hello)
    if (!again.ok || again.receiver !== receiver || this.#sockets.get(hello.tree) !== socket) {
      socket.destroy()
      return null
    }
    reply({ ok: true, applied, copy: admitted.copy })
    return { receiver, tree: hello.tree }
  }
}

/** Lets a connection wait: for the receiver's work, and for a moment when many small files have come at once. */
class ReadingTurn {
  readonly #socket: TLSSocket
  #endMs = 0
  #timer: NodeJS.Timeout | null = null

  constructor(socket: TLSSocket) {
    this.#socket = socket
  }

  /** To be called after each piece of what came. */
  look(receiver: Receiver | null): void {
    if (this.#timer !== null) return
    const nowMs = performance.now()
    if (receiver?.isFull === true) this.#pause(receiver)
    else if (this.#endMs === 0) {
      this.#endMs = nowMs + readingMs
      setImmediate(() => {
        this.#endMs = 0
      })
    } else if (nowMs > this.#endMs && !this.#socket.isPaused()) {
      this.#socket.pause()
      setImmediate(() => {
        if (this.#timer === null) this.#socket.resume()
      })
    }
  }

  #pause(receiver: Receiver): void {
    this.#socket.pause()
    this.#timer = setInterval(() => {
      if (receiver.isFull && !this.#socket.destroyed) return
      if (this.#timer !== null) clearInterval(this.#timer)
      this.#timer = null
      this.#socket.resume()
    }, roomLookMs)
  }
}

export interface ClientPart {
  /** Tried by turns. */
  hosts: readonly string[]
  port: number
  identity: TlsIdentity
  hello: () => Omit<Hello, 'version' | 'log' | 'hashKey'>
  sender: Sender
  /** Which copy what follows goes to. */
  onBackup: (copy: string) => void
  note: (why: string) => void
}

/** The primary's end: connects, and again after each cut, until closed. */
export class LinkClient {
  refusal: string | null = null
  readonly #part: ClientPart
  #socket: TLSSocket | null = null
  #retry: NodeJS.Timeout | null = null
  #closed = false
  #turn = 0

  constructor(part: ClientPart) {
    this.#part = part
    this.#connect()
  }

  close(): void {
    this.#closed = true
    if (this.#retry !== null) clearTimeout(this.#retry)
    this.#socket?.destroy()
  }

  #connect(): void {
    const { hosts, port, identity, sender } = this.#part
    const host = hosts[this.#turn % hosts.length]!
    this.#turn += 1
    const socket = connect({ host, port, ...tlsOptions(identity), checkServerIdentity: () => undefined })
    this.#socket = socket
    const silence = new Silence()
    let isAnswered = false
    let again = reconnectMs
    socket.setNoDelay(true)
    const alive = setInterval(() => {
      if (silence.isOver(silenceMs)) socket.destroy()
      else if (isAnswered) socket.write(encode({ op: 'ping' }))
    }, aliveEveryMs)
    socket.on('secureConnect', () => {
      if (!isPeer(socket, identity)) {
        this.#refused(`${host} shows a certificate that is not ${identity.peerName}'s`)
        socket.destroy()
      } else socket.write(jsonFrame(this.#hello()))
    })
    const splitter = new FrameSplitter(frame => {
      if (isAnswered) return sender.receive(decodeFromReceiver(frame))
      isAnswered = true
      again = this.#answered(socket, JSON.parse(frame.toString('utf8')) as Answer)
    })
    socket.on('data', chunk => {
      silence.heard()
      try {
        splitter.push(chunk)
      } catch (error) {
        this.#part.note(`the connection for files is cut: ${error instanceof Error ? error.message : error}`)
        socket.destroy()
      }
    })
    socket.on('error', () => socket.destroy())
    socket.on('close', () => {
      clearInterval(alive)
      if (this.#socket === socket) sender.detach()
      if (!this.#closed) this.#retry = setTimeout(() => this.#connect(), again)
    })
  }

  #hello(): Hello {
    const { sender, hello } = this.#part
    return { ...hello(), version: wireVersion, log: sender.log, hashKey: sender.hashKey.toString('hex') }
  }

  /** When to try again after the next end of the connection. */
  #answered(socket: TLSSocket, answer: Answer): number {
    if (!answer.ok) {
      this.#refused(`the backup refuses: ${answer.why}`)
      return refusedRetryMs
    }
    this.refusal = null
    this.#part.onBackup(answer.copy ?? '')
    this.#part.sender.attach(outletOf(socket), answer.applied)
    return reconnectMs
  }

  #refused(why: string): void {
    if (this.refusal !== why) this.#part.note(why)
    this.refusal = why
  }
}

/** What is sent in one turn goes out as one record of TLS; large frames go by themselves, since joining would copy them. */
function outletOf(socket: TLSSocket): Outlet {
  let isCorked = false
  const uncork = (): void => {
    if (isCorked) socket.uncork()
    isCorked = false
  }
  return {
    send(frame, taken) {
      if (frame.length > joinedBytesMax) uncork()
      else if (!isCorked) {
        isCorked = true
        socket.cork()
        process.nextTick(uncork)
      }
      socket.write(frame, taken)
    },
    backlogBytes: () => socket.writableLength,
  }
}

function jsonFrame(value: Hello | Answer): Buffer {
  const text = Buffer.from(JSON.stringify(value))
  const head = Buffer.alloc(4)
  head.writeUInt32LE(text.length)
  return Buffer.concat([head, text])
}

function parseHello(frame: Buffer): Hello | null {
  try {
    const said = JSON.parse(frame.toString('utf8')) as Omit<Hello, 'copy'> & { copy?: string }
    const hello: Hello = { ...said, copy: said.copy ?? '' }
    const isHello =
      hello.version === wireVersion &&
      [hello.pair, hello.node, hello.tree, hello.log, hello.copy].every(
        text => typeof text === 'string' && text.length <= 64,
      ) &&
      Number.isSafeInteger(hello.epoch) &&
      /^[0-9a-f]{32}$/.test(hello.hashKey) &&
      [hello.include, hello.exclude].every(list => Array.isArray(list) && list.every(one => typeof one === 'string'))
    return isHello ? hello : null
  } catch {
    return null
  }
}
