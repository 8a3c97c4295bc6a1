/** CRC-32C (Castagnoli, RFC 3720 B.4), by which PostgreSQL seals each record of its log. Node's zlib has CRC-32 only. */
const polynomial = 0x82f63b78
const table = new Int32Array(256).map((_, byte) => {
  let value = byte
  for (let bit = 0; bit < 8; bit++) value = value & 1 ? (value >>> 1) ^ polynomial : value >>> 1
  return value
})

/** Begin with this, update in order, end with {@link finishCrc32c}. */
export const crc32cStart = -1

export function updateCrc32c(crc: number, bytes: Uint8Array): number {
  let value = crc
  for (const byte of bytes) value = (value >>> 8) ^ table[(value ^ byte) & 0xff]!
  return value
}

/** Unsigned, as it stands in a file. */
export const finishCrc32c = (crc: number): number => ~crc >>> 0
