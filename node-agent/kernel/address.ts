/** IP addresses between text and the bytes the kernel wants. */
import { isIP } from 'node:net'

/** Which family an address belongs to. Throws if the text is no IP address. */
export function familyOf(address: string): 4 | 6 {
  const family = isIP(address)
  if (family === 4 || family === 6) return family
  throw new Error(`${JSON.stringify(address)} is no IPv4 or IPv6 address.`)
}

/** 4 or 16 bytes in network order. Throws if the text is no IP address; a zone (%eth0) is refused. */
export function addressBytes(address: string): Buffer {
  if (familyOf(address) === 4) return Buffer.from(address.split('.').map(Number))
  if (address.includes('%')) throw new Error(`${address}: an address with a zone can't be used here; leave out %…`)
  const bytes = Buffer.alloc(16)
  const [head = '', tail] = address.split('::')
  const front = groups(head)
  const back = tail === undefined ? [] : groups(tail)
  for (const [i, group] of front.entries()) bytes.writeUInt16BE(group, i * 2)
  for (const [i, group] of back.entries()) bytes.writeUInt16BE(group, 16 - (back.length - i) * 2)
  return bytes
}

function groups(text: string): number[] {
  if (text === '') return []
  return text.split(':').flatMap(group => {
    if (!group.includes('.')) return [Number.parseInt(group, 16)]
    const [a = 0, b = 0, c = 0, d = 0] = group.split('.').map(Number)
    return [a * 256 + b, c * 256 + d]
  })
}

/** The usual text of 4 or 16 bytes (RFC 5952); an IPv4 address mapped into IPv6 comes out as IPv4. */
export function addressText(bytes: Buffer): string {
  if (bytes.length === 4) return bytes.join('.')
  if (isMapped(bytes)) return bytes.subarray(12).join('.')
  const words = Array.from({ length: 8 }, (_, i) => bytes.readUInt16BE(i * 2).toString(16))
  const run = longestZeroRun(words)
  if (run.length < 2) return words.join(':')
  return `${words.slice(0, run.start).join(':')}::${words.slice(run.start + run.length).join(':')}`
}

function isMapped(bytes: Buffer): boolean {
  return bytes.subarray(0, 10).every(b => b === 0) && bytes.readUInt16BE(10) === 0xffff
}

function longestZeroRun(words: readonly string[]): { start: number; length: number } {
  let best = { start: 0, length: 0 }
  for (let start = 0; start < words.length; start++) {
    let length = 0
    while (words[start + length] === '0') length++
    if (length > best.length) best = { start, length }
  }
  return best
}

/** Two texts of one address compare equal. */
export function sameAddress(a: string, b: string): boolean {
  return addressBytes(a).equals(addressBytes(b))
}

/** A MAC address as people write it. */
export function macText(bytes: Buffer): string {
  return Array.from(bytes, b => b.toString(16).padStart(2, '0')).join(':')
}

/** The six bytes of a MAC address as people write it. Throws if it is none. */
export function macBytes(mac: string): Buffer {
  if (!/^[0-9a-f]{2}(:[0-9a-f]{2}){5}$/i.test(mac)) throw new Error(`${JSON.stringify(mac)} is no MAC address.`)
  return Buffer.from(mac.replaceAll(':', ''), 'hex')
}
