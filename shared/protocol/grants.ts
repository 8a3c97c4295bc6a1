/**
 * How long the kernel may be told to keep the gate open, so that no grant outlasts the lease it stands for.
 *
 * A grant is applied in two steps. First a guard that the kernel removes by itself after GUARD_MS; it is acknowledged
 * at t, so it is gone by t + GUARD_MS + SLOP_MS. Then one transaction that fails unless the guard is still there and
 * starts the grant g. However late that transaction is applied, it is applied before the guard is gone, hence
 *
 *     expiry ≤ t + GUARD_MS + SLOP_MS + g ≤ until        iff        g ≤ until − t − GUARD_MS − SLOP_MS
 */

/** How long an armed guard lives: above a scheduling delay on a busy host, small against the shortest lease (300 ms). */
export const GUARD_MS = 20

/**
 * What the kernel's timers may be late: one tick (4 ms at 250 Hz) for the guard's end, and as much again for the
 * grant's own end and the time spent inside the system call.
 */
export const SLOP_MS = 8

/** Below this a grant is not worth a transaction: the kernel floors timeouts to ticks (3 ms become nothing). */
export const MIN_GRANT_MS = 20

/**
 * No grant is longer, whatever the caller asks: the longest in use is 10 s (a pinned primary), and an arithmetic
 * mistake must not open the gate for hours.
 */
export const MAX_GRANT_MS = 15_000

/** What the guard form gives away before `until`, at the least. */
export const GRANT_OVERHEAD_MS = GUARD_MS + SLOP_MS

/**
 * The longest grant, in whole ms, for a guard acknowledged at `armedMs` and a lease that ends at `untilMs` (same clock).
 * 0 means: too late, do not open.
 */
export function grantMs(times: { armedMs: number; untilMs: number }): number {
  const longest = Math.floor(times.untilMs - times.armedMs - GRANT_OVERHEAD_MS)
  if (!(longest >= MIN_GRANT_MS)) return 0
  return Math.min(longest, MAX_GRANT_MS)
}

/** The latest instant at which a grant of `grantedMs`, armed at `armedMs`, can still be in force. */
export function latestExpiryMs(grant: { armedMs: number; grantedMs: number }): number {
  return grant.armedMs + GRANT_OVERHEAD_MS + grant.grantedMs
}
