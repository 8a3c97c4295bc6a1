/** The process behind {@link Peer}: takes commands over the IPC channel and answers each. */
import { type AddressInfo, createServer, connect as dialTcp, type Socket } from 'node:net'
import type { Outcome, PeerCommands } from './peer.ts'

const dialled = new Map<string, { socket: Socket; errorCode?: string }>()
const accepted = new Set<Socket>()

function errorOutcome(code: string | undefined): Outcome['outcome'] {
  switch (code) {
    case 'ECONNREFUSED':
      return 'refused'
    case 'ECONNRESET':
    case 'EPIPE':
    case 'ECONNABORTED':
      return 'reset'
    case 'ETIMEDOUT':
      return 'timeout'
    default:
      return 'unreachable'
  }
}

/** Resolves with the first that happens: the event that is waited for, an error, the end, or the limit. */
function waitFor(socket: Socket, wanted: 'connect' | 'data' | 'never', limitMs: number): Promise<Outcome> {
  const startMs = performance.now()
  return new Promise(resolve => {
    const done = (outcome: Outcome['outcome']) => {
      clearTimeout(timer)
      for (const [event, listener] of Object.entries(listeners)) socket.off(event, listener)
      resolve({ outcome, ms: performance.now() - startMs })
    }
    const listeners = {
      [wanted]: () => done('ok'),
      error: (error: NodeJS.ErrnoException) => done(errorOutcome(error.code)),
      close: () => done('closed'),
    }
    const timer = setTimeout(() => done('timeout'), limitMs)
    for (const [event, listener] of Object.entries(listeners)) socket.on(event, listener)
  })
}

const commands: { [K in keyof PeerCommands]: (ask: PeerCommands[K]['ask']) => Promise<PeerCommands[K]['answer']> } = {
  async listen({ host, port }) {
    const server = createServer(socket => {
      accepted.add(socket)
      socket.setNoDelay(true)
      socket.on('data', data => socket.write(data))
      socket.on('error', () => undefined)
      socket.on('close', () => accepted.delete(socket))
    })
    await new Promise<void>(resolve => server.listen(port, host, resolve))
    return { port: (server.address() as AddressInfo).port }
  },
  async connect({ host, port, limitMs }) {
    const socket = dialTcp(port, host)
    const opened = await waitFor(socket, 'connect', limitMs)
    if (opened.outcome === 'ok') {
      socket.write('line\n')
      opened.outcome = (await waitFor(socket, 'data', limitMs)).outcome
    }
    socket.on('error', () => undefined)
    socket.destroy()
    return opened
  },
  async dial({ id, host, port, limitMs }) {
    const socket = dialTcp(port, host)
    socket.setNoDelay(true)
    const entry: { socket: Socket; errorCode?: string } = { socket }
    dialled.set(id, entry)
    socket.on('error', (error: NodeJS.ErrnoException) => {
      if (error.code !== undefined) entry.errorCode = error.code
    })
    socket.resume()
    const outcome = await waitFor(socket, 'connect', limitMs)
    return { ...outcome, localPort: socket.localPort ?? 0 }
  },
  async say({ id, limitMs }) {
    const { socket } = dialled.get(id)!
    socket.write('line\n')
    return waitFor(socket, 'data', limitMs)
  },
  async ended({ id, limitMs }) {
    const { socket, errorCode } = dialled.get(id)!
    if (socket.closed) return { outcome: errorCode === undefined ? 'closed' : errorOutcome(errorCode), ms: 0 }
    return waitFor(socket, 'never', limitMs)
  },
  async push() {
    for (const socket of accepted) socket.write('pushed\n')
    return { connections: accepted.size }
  },
  async hear({ id, limitMs }) {
    return waitFor(dialled.get(id)!.socket, 'data', limitMs)
  },
}

process.on('message', async ({ id, command, ask }: { id: number; command: keyof PeerCommands; ask: never }) => {
  process.send!({ id, answer: await commands[command](ask) })
})
process.on('disconnect', () => process.exit(0))
process.send!('ready')
