import { bootMs, monotonicMs } from '../kernel/clock.ts'
import type { Clock } from '../ports.ts'

/** The host's clocks, and the wall clock for people. */
export const hostClock: Clock = { bootMs, monotonicMs, wallMs: Date.now, random: Math.random }
