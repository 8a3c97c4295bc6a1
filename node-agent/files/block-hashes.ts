import { createCipheriv, createSecretKey, type KeyObject } from 'node:crypto'

/**
 * Hashes of the blocks of a large file, to find those that changed.
 *
 * GMAC (the authenticator of AES-GCM over data that is not encrypted) with a random key of the log: for any two
 * different blocks the chance of the same hash is below 2^-110 over the choice of the key, which nobody who writes the
 * files knows; and processors compute it several times faster than SHA-256. It is used for nothing else: the key never
 * encrypts, so that the constant nonce is harmless here.
 */
export const blockBytes = 256 * 1024
export const hashBytes = 16
export const hashKeyBytes = 16

const nonce = Buffer.alloc(12)

/** Making the key's object costs as much as hashing a block with it. */
const keys = new WeakMap<Buffer, KeyObject>()

function keyOf(bytes: Buffer): KeyObject {
  const present = keys.get(bytes)
  if (present !== undefined) return present
  const made = createSecretKey(bytes)
  keys.set(bytes, made)
  return made
}

export function hashBlock(key: Buffer, block: Buffer): Buffer {
  const mac = createCipheriv('aes-128-gcm', keyOf(key), nonce)
  mac.setAAD(block)
  mac.final()
  return mac.getAuthTag()
}

/** Where the hash of names begins with which a large directory is divided; the backup has the same key. */
export const hashStartOf = (key: Buffer): number => key.readInt32LE(0)

export const blockCount = (size: number): number => Math.ceil(size / blockBytes)

/** Of a file of a tebibyte: what one message takes, and what a worker can keep. Larger files are sent as a whole. */
const hashesBytesMax = 63 * 2 ** 20
export const isHashed = (size: number): boolean => blockCount(size) * hashBytes <= hashesBytesMax

/** Whether block number `index` has this hash in a list. */
export const isSameHash = (hashes: Buffer, index: number, hash: Buffer): boolean =>
  hashes.length >= (index + 1) * hashBytes && hash.equals(hashes.subarray(index * hashBytes, (index + 1) * hashBytes))
