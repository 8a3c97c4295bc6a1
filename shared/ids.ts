/** ULIDs in lower case (Crockford's alphabet): 48 bits of time and 80 of chance, so that ids sort by their making. */
const alphabet = '0123456789abcdefghjkmnpqrstvwxyz'
const timeLetters = 10
const randomLetters = 16

export function ulid(nowMs: number): string {
  let time = ''
  let rest = nowMs
  for (let at = 0; at < timeLetters; at++) {
    time = alphabet[rest % 32] + time
    rest = Math.floor(rest / 32)
  }
  // Five bits of each byte: 80 of 128.
  const random = crypto.getRandomValues(new Uint8Array(randomLetters))
  return time + Array.from(random, byte => alphabet[byte % 32]).join('')
}
