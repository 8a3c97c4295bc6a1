/**
 * Tells clients of a host that is gone that their connections are: without it a client that waits for an answer, with
 * no keepalive set, waits for ever. See {@link bareAck} for how. To be sent once the gate is open and the address
 * announced, so that the client's answer arrives here and draws a reset.
 */
import { addressBytes, familyOf } from '../kernel/address.ts'
import { AF_INET, AF_INET6, closeFd, openSocket, SOCK_RAW, trySend } from '../kernel/libc.ts'
import { type Connection, sameFamily } from './connections.ts'
import { bareAck } from './frames.ts'

/** A raw socket of this protocol takes whole IP packets (raw(7)), which the kernel routes and the gate sees. */
const IPPROTO_RAW = 255
/** No list of clients is longer (see MAX_CLIENTS); twice that allows for two of them. */
const MAX_TICKLES = 512

/** `local` is the virtual address and port, `remote` the client. Returns how many could be sent; none blocks. */
export function tickle(connections: readonly Connection[]): { sent: number } {
  let sent = 0
  for (const family of [4, 6] as const) {
    const targets = connections.filter(c => familyOf(c.local.address) === family && sameFamily(c.local, c.remote))
    if (targets.length === 0) continue
    const domain = family === 4 ? AF_INET : AF_INET6
    const fd = openSocket({ domain, type: SOCK_RAW, protocol: IPPROTO_RAW })
    try {
      for (const { local, remote } of targets.slice(0, MAX_TICKLES)) {
        if (trySend(fd, bareAck(local, remote), socketAddress(remote.address)) === 0) sent++
      }
    } finally {
      closeFd(fd)
    }
  }
  return { sent }
}

function socketAddress(address: string): Buffer {
  if (familyOf(address) === 4) {
    const bytes = Buffer.alloc(16)
    bytes.writeUInt16LE(AF_INET)
    addressBytes(address).copy(bytes, 4)
    return bytes
  }
  const bytes = Buffer.alloc(28)
  bytes.writeUInt16LE(AF_INET6)
  addressBytes(address).copy(bytes, 8)
  return bytes
}
