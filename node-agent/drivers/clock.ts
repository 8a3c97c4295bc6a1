import { bootMs } from '../kernel/clock.ts'
import type { Clock } from '../ports.ts'

/** The host's clocks, and the wall clock for people. Node's own is CLOCK_MONOTONIC, without a call into the C library. */
export const hostClock: Clock = { bootMs, monotonicMs: () => performance.now(), wallMs: Date.now, random: Math.random }
