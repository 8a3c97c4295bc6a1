import type { Durable, Incarnation } from './types.ts'

/** The store of a data host that has just been made: it has no vote until a committed value admits `inc`. */
export function newDurable(inc: Incarnation): Durable {
  return {
    inc,
    promised: 0,
    acc: null,
    known: null,
    lastOwn: 0,
    resigned: 0,
    confirmedBoot: '',
    wSeen: {},
    leaseMs: 0,
    maxFlushed: { timeline: 0, lsn: 0 },
    dataGen: 0,
    gaveUpGen: 0,
    overruled: null,
  }
}
