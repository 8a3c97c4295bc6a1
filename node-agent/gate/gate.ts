/** What the core asks of the gate. The kernel's is in kernel-gate.ts; a test may bring its own. */

/** open: serves. frozen: packets vanish, connections survive. closed: connections are reset, addresses are silent. */
export type GateState = 'open' | 'frozen' | 'closed'

export type GateCounters = {
  /** Packets stopped while frozen. */
  frozenPackets: number
  /** Packets answered with a reset or an ICMP error while closed. */
  refusedPackets: number
  arpSilencedPackets: number
  announcementsStoppedPackets: number
}

/** `absent`: the tables are gone, so everything passes; see watch.ts. */
export type GateReading = { state: GateState | 'absent'; expiresInMs: number; counters: GateCounters }

/**
 * too-short: the lease leaves no room for a grant. late: this process was stopped between the two steps.
 * replaced: another process took the gate over. lost: the tables are gone or changed. refused: anything else.
 */
export type OpenRefusal = 'too-short' | 'late' | 'replaced' | 'lost' | 'refused'
/**
 * expiresByBootMs: the latest end of the grant, whatever its answer says. acknowledgedUntilBootMs: the latest end of one that
 * was in force when the kernel answered, so the same as a question after it would show, and up to 28 ms earlier.
 */
export type OpenResult =
  | { ok: true; expiresByBootMs: number; acknowledgedUntilBootMs: number }
  | { ok: false; code: OpenRefusal; why: string }

export interface Gate {
  /**
   * Adopts the tables of an agent before us if they match, else creates them frozen. Never passes through open.
   * `replaced`: why tables that were there were not taken.
   */
  install(): { found: GateState; expiresInMs: number; replaced?: string }
  /**
   * Opens, renews or shortens, until at most `untilBootMs` (CLOCK_BOOTTIME); the kernel's expiry never passes it.
   * Refused, it changes nothing: a grant that is in force stays as it is.
   */
  open(untilBootMs: number): OpenResult
  /** Stops serving; unconditional, and nothing sent before takes effect after. */
  freeze(): void
  close(): void
  read(): GateReading
  uninstall(): void
}
