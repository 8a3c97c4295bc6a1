/** Addresses as data: parsed once, compared as numbers. Text forms after RFC 4291 section 2.2 and RFC 4632. */
export interface Address {
  family: 4 | 6
  /** The address as an unsigned integer of 32 or 128 bits. */
  value: bigint
}

export interface Prefix extends Address {
  /** 0..32 or 0..128. */
  length: number
}

/** null if the text is no address; zone ids ("fe80::1%eth0") are refused, since they mean nothing to the peer. */
export function parseAddress(text: string): Address | null {
  return text.includes(':') ? parseV6(text) : parseV4(text)
}

/** "10.9.0.100/24": the address keeps its host bits. */
export function parsePrefix(text: string): Prefix | null {
  const [host = '', bits, extra] = text.split('/')
  const address = parseAddress(host)
  if (address === null || extra !== undefined || !/^\d{1,3}$/.test(bits ?? '')) return null
  const length = Number(bits)
  return length <= bitsOf(address.family) ? { ...address, length } : null
}

/** Whether `address` lies in the network of `prefix`. */
export function contains(prefix: Prefix, address: Address): boolean {
  if (prefix.family !== address.family) return false
  const shift = BigInt(bitsOf(prefix.family) - prefix.length)
  return prefix.value >> shift === address.value >> shift
}

export const sameAddress = (one: Address, other: Address): boolean =>
  one.family === other.family && one.value === other.value

/** Multicast, unspecified, loopback, link-local and the IPv4 limited broadcast: nothing a service address or a peer may be. */
export function isSpecial(address: Address): boolean {
  return (address.family === 4 ? specialV4 : specialV6).some(text => contains(parsePrefix(text)!, address))
}

/** fe80::/10: on every link of its own (RFC 4291, 2.5.6). */
export const isLinkLocal = (address: Address): boolean => contains(parsePrefix('fe80::/10')!, address)
const specialV4 = ['0.0.0.0/8', '127.0.0.0/8', '169.254.0.0/16', '224.0.0.0/4', '255.255.255.255/32']
const specialV6 = ['::/128', '::1/128', 'fe80::/10', 'ff00::/8', '::ffff:0:0/96']

const bitsOf = (family: 4 | 6): number => (family === 4 ? 32 : 128)

function parseV4(text: string): Address | null {
  const parts = text.split('.')
  // No leading zeros: some resolvers read "010" as octal 8.
  if (parts.length !== 4 || parts.some(part => !/^(0|[1-9]\d{0,2})$/.test(part) || Number(part) > 255)) return null
  return { family: 4, value: parts.reduce((sum, part) => sum * 256n + BigInt(part), 0n) }
}

function parseV6(text: string): Address | null {
  const halves = text.split('::')
  if (halves.length > 2) return null
  const [head, tail] = [groupsOf(halves[0] ?? ''), groupsOf(halves[1] ?? '')]
  if (head === null || tail === null) return null
  const missing = 8 - head.length - tail.length
  if (halves.length === 2 ? missing < 1 : missing !== 0) return null
  const groups = [...head, ...Array.from({ length: missing }, () => 0n), ...tail]
  return { family: 6, value: groups.reduce((sum, group) => sum * 65536n + group, 0n) }
}

/** The 16-bit groups of one side of "::"; the last may be dotted IPv4. */
function groupsOf(text: string): bigint[] | null {
  if (text === '') return []
  const groups: bigint[] = []
  const parts = text.split(':')
  for (const [index, part] of parts.entries()) {
    const v4 = index === parts.length - 1 && part.includes('.') ? parseV4(part) : null
    if (v4 !== null) groups.push(v4.value >> 16n, v4.value & 0xffffn)
    else if (/^[0-9a-fA-F]{1,4}$/.test(part)) groups.push(BigInt(`0x${part}`))
    else return null
  }
  return groups
}
