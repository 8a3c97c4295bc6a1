/** Established TCP connections, by sock_diag (sock_diag(7)): listed for the other host, destroyed at a demotion. */
import { addressBytes, addressText, familyOf } from '../kernel/address.ts'
import { AF_INET, AF_INET6, ENOENT, EOPNOTSUPP, KernelError } from '../kernel/libc.ts'
import { MessageWriter, NETLINK_SOCK_DIAG, NetlinkSocket, NLM_F_ACK, NLM_F_DUMP } from '../kernel/netlink.ts'
import type { Endpoint } from './frames.ts'

const SOCK_DIAG_BY_FAMILY = 20
const SOCK_DESTROY = 21
const IPPROTO_TCP = 6
const REQUEST_BYTES = 56
const SOCKET_ID_BYTES = 48
const REPLY_BYTES = 72
/** TCP states as bits (net/tcp_states.h). */
const ESTABLISHED = 1 << 1
/** All in which data may still flow one way: ESTABLISHED, SYN_RECV, FIN_WAIT1, FIN_WAIT2, CLOSE_WAIT, LAST_ACK, CLOSING. */
const ALIVE = (1 << 1) | (1 << 3) | (1 << 4) | (1 << 5) | (1 << 8) | (1 << 9) | (1 << 11)

/** What travels with each heartbeat: some dozen bytes each, so this many keep it within a few packets. */
export const MAX_CLIENTS = 256

export type Connection = { local: Endpoint; remote: Endpoint }
type Held = Connection & { family: number; id: Buffer }

export class Connections {
  readonly #socket = new NetlinkSocket(NETLINK_SOCK_DIAG)
  readonly #writer = new MessageWriter(4096)

  /** Established connections of clients to the addresses' ports, at most {@link MAX_CLIENTS}; `more` counts the rest. */
  clients(of: { addresses: readonly string[]; ports: readonly number[] }): { clients: Connection[]; more: number } {
    const local = addressSet(of.addresses)
    const all = this.#list(of.ports, ESTABLISHED).filter(held => local.has(held.local.address))
    const clients = all.slice(0, MAX_CLIENTS).map(({ local, remote }) => ({ local, remote }))
    return { clients, more: all.length - clients.length }
  }

  /**
   * Destroys connections: all with one of `addresses` as local address, and all of `ports` on any address except those
   * with a remote address in `exceptRemote` (the peer's replication). Both ends learn of it by a reset, so the gate has
   * to be closed or open, not frozen. Returns how many were destroyed.
   */
  destroy(which: { addresses: readonly string[]; ports: readonly number[]; exceptRemote: readonly string[] }): {
    destroyed: number
  } {
    const local = addressSet(which.addresses)
    const spared = addressSet(which.exceptRemote)
    const ports = new Set(which.ports)
    const doomed = this.#list([0], ALIVE).filter(
      held => local.has(held.local.address) || (ports.has(held.local.port) && !spared.has(held.remote.address)),
    )
    return { destroyed: doomed.filter(held => this.#destroy(held)).length }
  }

  close(): void {
    this.#socket.close()
  }

  /** Port 0 means every port. IPv4 clients of a socket for both families are listed by the kernel under IPv6. */
  #list(ports: readonly number[], states: number): Held[] {
    const held: Held[] = []
    for (const family of [AF_INET, AF_INET6]) {
      for (const port of ports) {
        const request = header(family, states)
        request.writeUInt16BE(port, 8)
        const answer = this.#request(SOCK_DIAG_BY_FAMILY, NLM_F_DUMP, request)
        const error = answer.errors[0]
        if (error !== undefined) throw new KernelError('list TCP connections', error.errno)
        for (const { body } of answer.messages) if (body.length >= REPLY_BYTES) held.push(readReply(body))
      }
    }
    return held
  }

  #destroy(held: Held): boolean {
    const request = header(held.family, ALIVE)
    held.id.copy(request, 8)
    const error = this.#request(SOCK_DESTROY, NLM_F_ACK, request).errors[0]
    // ENOENT: it ended by itself meanwhile.
    if (error === undefined || error.errno === ENOENT) return error === undefined
    const hint = error.errno === EOPNOTSUPP ? 'this kernel lacks INET_DIAG_DESTROY' : ''
    throw new KernelError(`destroy the connection of ${held.remote.address}:${held.remote.port}`, error.errno, hint)
  }

  #request(type: number, flags: number, body: Buffer) {
    const bytes = this.#writer.reset().begin({ type, flags, seq: this.#socket.nextSeq() }).raw(body).end().bytes()
    return flags === NLM_F_DUMP ? this.#socket.dump(bytes) : this.#socket.request(bytes)
  }
}

function addressSet(addresses: readonly string[]): Set<string> {
  return new Set(addresses.map(address => addressText(addressBytes(address))))
}

function header(family: number, states: number): Buffer {
  const request = Buffer.alloc(REQUEST_BYTES)
  request[0] = family
  request[1] = IPPROTO_TCP
  request.writeUInt32LE(states, 4)
  return request
}

function readReply(body: Buffer): Held {
  const family = body[0]!
  const bytes = family === AF_INET ? 4 : 16
  const id = Buffer.from(body.subarray(4, 4 + SOCKET_ID_BYTES))
  return {
    family,
    id,
    local: { address: addressText(id.subarray(4, 4 + bytes)), port: id.readUInt16BE(0) },
    remote: { address: addressText(id.subarray(20, 20 + bytes)), port: id.readUInt16BE(2) },
  }
}

/** Whether both endpoints are of one family; a tickle goes nowhere else. */
export function sameFamily(a: Endpoint, b: Endpoint): boolean {
  return familyOf(a.address) === familyOf(b.address)
}
