/** The frames and segments the VIP driver sends, as bytes, and what it reads out of answers. Pure. */
import { addressBytes, familyOf, macBytes, macText } from '../kernel/address.ts'
import { ETH_P_ARP, ETH_P_IPV6 } from '../kernel/packet.ts'

const BROADCAST = 'ff:ff:ff:ff:ff:ff'
const ETHERNET_BYTES = 14
const ARP_REQUEST = 1
const ARP_REPLY = 2
const IPPROTO_TCP = 6
const IPPROTO_ICMPV6 = 58
const ND_SOLICITATION = 135
const ND_ADVERTISEMENT = 136
const UNSPECIFIED4 = '0.0.0.0'
const NOBODY = '00:00:00:00:00:00'
/** Neighbour messages with another hop limit are thrown away (RFC 4861, 7.1): they crossed a router. */
const ND_HOP_LIMIT = 255

/** The two gratuitous ARP forms: some neighbours take up the request, others only the reply (RFC 5227, 3). */
export function gratuitousArp(mac: string, address: string): Buffer[] {
  const common = { destination: BROADCAST, senderMac: mac, senderIp: address, targetIp: address }
  return [
    arp({ ...common, operation: ARP_REQUEST, targetMac: NOBODY }),
    arp({ ...common, operation: ARP_REPLY, targetMac: BROADCAST }),
  ]
}

/** An ARP probe: who has this address? The sender address is zero, so that no cache takes it up (RFC 5227, 2.1.1). */
export function arpProbe(mac: string, address: string): Buffer {
  return arpRequest({ mac, from: UNSPECIFIED4, target: address })
}

export function arpRequest(options: { mac: string; from: string; target: string }): Buffer {
  const { mac, from, target } = options
  return arp({
    destination: BROADCAST,
    operation: ARP_REQUEST,
    senderMac: mac,
    senderIp: from,
    targetMac: NOBODY,
    targetIp: target,
  })
}

type ArpFields = {
  destination: string
  operation: number
  senderMac: string
  senderIp: string
  targetMac: string
  targetIp: string
}

function arp(fields: ArpFields): Buffer {
  const body = Buffer.alloc(28)
  body.writeUInt16BE(1, 0)
  body.writeUInt16BE(0x0800, 2)
  body[4] = 6
  body[5] = 4
  body.writeUInt16BE(fields.operation, 6)
  macBytes(fields.senderMac).copy(body, 8)
  addressBytes(fields.senderIp).copy(body, 14)
  macBytes(fields.targetMac).copy(body, 18)
  addressBytes(fields.targetIp).copy(body, 24)
  return ethernet({ destination: fields.destination, source: fields.senderMac, etherType: ETH_P_ARP, body })
}

export type ArpPacket = { operation: 'request' | 'reply'; senderMac: string; senderIp: Buffer; targetIp: Buffer }

/** Reads an ARP frame; undefined for anything else. */
export function readArp(frame: Buffer): ArpPacket | undefined {
  if (frame.length < ETHERNET_BYTES + 28 || frame.readUInt16BE(12) !== ETH_P_ARP) return undefined
  const body = frame.subarray(ETHERNET_BYTES)
  const operation = body.readUInt16BE(6)
  if (operation !== ARP_REQUEST && operation !== ARP_REPLY) return undefined
  return {
    operation: operation === ARP_REQUEST ? 'request' : 'reply',
    senderMac: macText(body.subarray(8, 14)),
    senderIp: body.subarray(14, 18),
    targetIp: body.subarray(24, 28),
  }
}

/** An unsolicited neighbour advertisement with the override flag, to all nodes (RFC 4861, 7.2.6). */
export function unsolicitedAdvertisement(mac: string, address: string): Buffer {
  const message = Buffer.alloc(32)
  message[0] = ND_ADVERTISEMENT
  message[4] = 0x20
  addressBytes(address).copy(message, 8)
  message[24] = 2
  message[25] = 1
  macBytes(mac).copy(message, 26)
  return icmpv6({ mac, from: address, to: 'ff02::1', message })
}

/** The solicitation of duplicate address detection: from no address, to the target's group (RFC 4862, 5.4.2). */
export function duplicateSolicitation(mac: string, address: string): Buffer {
  const message = Buffer.alloc(24)
  message[0] = ND_SOLICITATION
  addressBytes(address).copy(message, 8)
  return icmpv6({ mac, from: '::', to: solicitedNodeGroup(address), message })
}

/** Who has this address? Told who asks, so that the answer comes back alone (RFC 4861, 4.3). */
export function neighbourSolicitation(options: { mac: string; from: string; target: string }): Buffer {
  const { mac, from, target } = options
  const message = Buffer.alloc(32)
  message[0] = ND_SOLICITATION
  addressBytes(target).copy(message, 8)
  message[24] = 1
  message[25] = 1
  macBytes(mac).copy(message, 26)
  return icmpv6({ mac, from, to: solicitedNodeGroup(target), message })
}

/** RFC 4291, 2.7.1. */
function solicitedNodeGroup(address: string): string {
  const group = addressBytes('ff02::1:ff00:0')
  addressBytes(address).copy(group, 13, 13)
  return Array.from({ length: 8 }, (_, i) => group.readUInt16BE(i * 2).toString(16)).join(':')
}

export type NeighbourPacket = {
  kind: 'solicitation' | 'advertisement'
  senderMac: string
  senderIp: Buffer
  target: Buffer
}

/** Reads a neighbour solicitation or advertisement; undefined for anything else. */
export function readNeighbour(frame: Buffer): NeighbourPacket | undefined {
  if (frame.length < ETHERNET_BYTES + 40 + 24 || frame.readUInt16BE(12) !== ETH_P_IPV6) return undefined
  const header = frame.subarray(ETHERNET_BYTES, ETHERNET_BYTES + 40)
  if (header[6] !== IPPROTO_ICMPV6 || header[7] !== ND_HOP_LIMIT) return undefined
  const message = frame.subarray(ETHERNET_BYTES + 40)
  if (message[0] !== ND_SOLICITATION && message[0] !== ND_ADVERTISEMENT) return undefined
  return {
    kind: message[0] === ND_SOLICITATION ? 'solicitation' : 'advertisement',
    senderMac: macText(frame.subarray(6, 12)),
    senderIp: header.subarray(8, 24),
    target: message.subarray(8, 24),
  }
}

function icmpv6(packet: { mac: string; from: string; to: string; message: Buffer }): Buffer {
  const { mac, message } = packet
  const header = ipv6Header({
    ...packet,
    protocol: IPPROTO_ICMPV6,
    payloadBytes: message.length,
    hopLimit: ND_HOP_LIMIT,
  })
  message.writeUInt16BE(upperChecksum({ ...packet, protocol: IPPROTO_ICMPV6, payload: message }), 2)
  const destination = `33:33:${macText(addressBytes(packet.to).subarray(12))}`
  return ethernet({ destination, source: mac, etherType: ETH_P_IPV6, body: Buffer.concat([header, message]) })
}

function ethernet(frame: { destination: string; source: string; etherType: number; body: Buffer }): Buffer {
  const type = Buffer.alloc(2)
  type.writeUInt16BE(frame.etherType)
  return Buffer.concat([macBytes(frame.destination), macBytes(frame.source), type, frame.body])
}

export type Endpoint = { address: string; port: number }

/**
 * A bare acknowledgement with sequence number 0, as a whole IP packet. A host that has the connection answers with its
 * real numbers (RFC 9293, 3.10.7.4: an unacceptable segment is acknowledged), and that answer draws a reset from
 * whoever holds `from` now and knows of no such connection.
 */
export function bareAck(from: Endpoint, to: Endpoint): Buffer {
  const segment = Buffer.alloc(20)
  segment.writeUInt16BE(from.port, 0)
  segment.writeUInt16BE(to.port, 2)
  segment[12] = 5 << 4
  segment[13] = 0x10
  segment.writeUInt16BE(1024, 14)
  const addresses = { from: from.address, to: to.address }
  segment.writeUInt16BE(upperChecksum({ ...addresses, protocol: IPPROTO_TCP, payload: segment }), 16)
  const common = { ...addresses, protocol: IPPROTO_TCP, payloadBytes: segment.length, hopLimit: 64 }
  const header = familyOf(from.address) === 4 ? ipv4Header(common) : ipv6Header(common)
  return Buffer.concat([header, segment])
}

type HeaderFields = { from: string; to: string; protocol: number; payloadBytes: number; hopLimit: number }

/** Identification and checksum stay 0: the kernel fills them in for a raw socket (raw(7), IP_HDRINCL). */
function ipv4Header(fields: HeaderFields): Buffer {
  const header = Buffer.alloc(20)
  header[0] = 0x45
  header.writeUInt16BE(20 + fields.payloadBytes, 2)
  header[8] = fields.hopLimit
  header[9] = fields.protocol
  addressBytes(fields.from).copy(header, 12)
  addressBytes(fields.to).copy(header, 16)
  return header
}

function ipv6Header(fields: HeaderFields): Buffer {
  const header = Buffer.alloc(40)
  header[0] = 0x60
  header.writeUInt16BE(fields.payloadBytes, 4)
  header[6] = fields.protocol
  header[7] = fields.hopLimit
  addressBytes(fields.from).copy(header, 8)
  addressBytes(fields.to).copy(header, 24)
  return header
}

/** The checksum of TCP and ICMPv6 over the pseudo header (RFC 9293, 3.1; RFC 8200, 8.1). */
function upperChecksum(packet: { from: string; to: string; protocol: number; payload: Buffer }): number {
  const { payload, protocol } = packet
  const pseudo = Buffer.alloc(8)
  pseudo.writeUInt32BE(payload.length, 0)
  pseudo.writeUInt32BE(protocol, 4)
  return internetChecksum(Buffer.concat([addressBytes(packet.from), addressBytes(packet.to), pseudo, payload]))
}

/** RFC 1071. */
export function internetChecksum(data: Buffer): number {
  let sum = 0
  for (let i = 0; i < data.length; i += 2) sum += (data[i]! << 8) | (data[i + 1] ?? 0)
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16)
  return ~sum & 0xffff
}
