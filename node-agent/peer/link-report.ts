import { z } from 'zod'
import type { PathSnapshot } from './path-quality.ts'
import type { PathConfig } from './path-socket.ts'
import type { PeerIdentity } from './session.ts'

/** What the agents tell each other beside the protocol; the core never sees it. Everything in it is the sender's word. */
export const extrasSchema = z.looseObject({
  /** "address:port" of clients that hold connections, for the resets after a takeover. */
  clients: z.exactOptional(z.array(z.string().max(64)).max(64)),
  agentVersion: z.exactOptional(z.string().max(40)),
})
export type Extras = z.infer<typeof extrasSchema>
export const extrasBytesMax = 8192

/** Why a packet was thrown away. */
export type Discard =
  | 'oversized'
  | 'malformed'
  /** Not from the configured address of that path. */
  | 'stranger'
  /** Of another pair. */
  | 'foreign'
  | 'version'
  | 'incompatible'
  | 'sameNode'
  | 'forged'
  | 'unknownSession'
  | 'replayed'
  | 'undecodable'

export interface Refused {
  why: Discard
  /** Present where a person has to know. */
  sentence?: string
}

export interface LinkStatistics {
  /** null = no conversation yet. */
  peer: (PeerIdentity & { version: number; byFirstKey: boolean }) | null
  paths: (PathConfig & PathSnapshot & { fault: string | null; sendFaults: number; sent: number; received: number })[]
  messages: { sent: number; unsent: number; received: number; copies: number }
  discarded: { [why in Discard]: number }
}

export const zeroDiscards = (): { [why in Discard]: number } => ({
  oversized: 0,
  malformed: 0,
  stranger: 0,
  foreign: 0,
  version: 0,
  incompatible: 0,
  sameNode: 0,
  forged: 0,
  unknownSession: 0,
  replayed: 0,
  undecodable: 0,
})
