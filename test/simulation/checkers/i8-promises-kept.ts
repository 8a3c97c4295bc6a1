import { brokenPromise } from '../../../shared/protocol/invariants.ts'
import type { DataNode, Durable, Incarnation } from '../../../shared/protocol/types.ts'
import { type MakeChecker, Violation } from './check.ts'

interface Memory {
  /** True time until which this host has promised to wait. */
  until: number
  /** An own takeover that may still be chosen. */
  candidacy: number
  /** True time before which a start or a clock jump forbids a candidacy. */
  quarantine: number
}

/** I8: promises and quarantines are kept: of the lease, of the acceptors, and of a candidate. */
export const promisesKept: MakeChecker = pair => {
  const of: { [node in DataNode]: Memory } = {
    a: { until: 0, candidacy: 0, quarantine: 0 },
    b: { until: 0, candidacy: 0, quarantine: 0 },
  }
  const stores = new Map<Incarnation, Durable>()
  const slackMs = 0.001
  return {
    name: 'I8',
    step: (host, before, after, event, effects) => {
      const memory = of[host.node]
      const { now } = pair.world
      const { leaseMs } = host.agent.timing
      if (event.event === 'start' || event.event === 'clockJump') {
        memory.quarantine = host.clock.trueTimeOf(event.now + leaseMs)
        if (event.event === 'start') {
          const { durable } = event
          const doubt = durable.lastOwn > (durable.known?.ballot ?? 0)
          memory.candidacy = doubt && durable.known?.value.primary === host.peer.node ? durable.lastOwn : 0
        }
      }
      const { round } = after
      if (round !== null && round.change === 'takeover' && before.round?.ballot !== round.ballot) {
        memory.candidacy = round.ballot
        if (now < memory.quarantine - slackMs)
          throw new Violation('I8', `${host.node} stands within ${leaseMs} ms of its start`)
        const resigned = round.resigned !== 0 && host.peer.file.content.resigned === round.resigned
        if (!resigned && now < memory.until - slackMs) {
          throw new Violation('I8', `${host.node} stands ${(memory.until - now).toFixed(1)} ms before its promise ends`)
        }
      }
      if (memory.candidacy !== 0 && (after.durable.known?.ballot ?? 0) >= memory.candidacy) memory.candidacy = 0
      for (const effect of effects) {
        if (effect.do !== 'send' || effect.message.kind !== 'ack' || !effect.message.promise) continue
        if (memory.candidacy !== 0)
          throw new Violation('I8', `${host.node} promises to wait while its candidacy is open`)
        // A shorter one, by a new start with another profile, takes no earlier one back.
        memory.until = Math.max(memory.until, host.clock.trueTimeOf(event.now + leaseMs))
      }
    },
    durable: (host, durable) => {
      const before = stores.get(durable.inc)
      const broken = before === undefined ? null : brokenPromise(before, durable)
      if (broken !== null) throw new Violation('I8', `${host.node}: ${broken}`)
      stores.set(durable.inc, durable)
    },
  }
}
