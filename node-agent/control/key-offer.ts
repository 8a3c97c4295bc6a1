import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'

/** The pair's new key for the other host, while it is changed (key-change.ts); the core passes it on and can't read it. */
export const offerFile = (stateDir: string): string => join(stateDir, 'control', 'key-offer.json')
/** A signature over 2000 bytes of names and sealed keys, with the authority's certificate. */
export const offerBytesMax = 8000

/** null: no change is under way. */
export const readOffer = (stateDir: string): string | null =>
  existsSync(offerFile(stateDir)) ? readFileSync(offerFile(stateDir), 'utf8') : null
