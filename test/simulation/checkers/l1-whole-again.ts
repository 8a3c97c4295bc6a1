import { obstacleToProtection } from '../../../shared/protocol/duties.ts'
import type { Pair } from '../pair.ts'
import { Violation } from './check.ts'

/** L1: after the faults have healed, one host serves within a bounded time and the other becomes its successor again. */
export function demandWholeAgain(pair: Pair, what: { whole: boolean; limitMs: number; after: string }): void {
  if (what.whole) return
  throw new Violation(
    'L1',
    `${what.after}, but the pair is not whole within ${what.limitMs.toFixed(0)} ms: ${describe(pair)}`,
  )
}

/** ... and that is not only said: a client's write is acknowledged. */
export function demandWrites(what: { acknowledged: boolean; limitMs: number }): void {
  if (!what.acknowledged)
    throw new Violation('L1', `the pair is whole, but no write is acknowledged within ${what.limitMs} ms`)
}

/** Where everything stands, for whoever looks at a failed run. */
export function describe(pair: Pair): string {
  const latest = pair.checks.register.latest?.value
  const host = (node: 'a' | 'b') => {
    const h = pair.hosts[node]
    const { durable, duty, round, lease, database } = h.state
    const said = Object.entries(duty.said)
      .filter(([, text]) => text !== '')
      .map(([topic, text]) => `${topic}: ${text}`)
    return `${node}: power ${h.power}, agent ${h.agent.process}, store ${durable.inc}, database ${h.cluster.process} (${h.cluster.dir}, epoch ${h.cluster.marker}), gate ${h.gate.report().state}, round ${round?.change ?? 'none'}, operation ${database.op?.op.op ?? 'none'}, obstacle ${obstacleToProtection(h.state, h.clock.now) ?? 'none'}${lease.ack ? `, ack ${lease.ack.why || 'ok'}` : ''} [${said.join('; ')}]`
  }
  const witness = `w: ${pair.witness.inc}${pair.witness.votes ? '' : ' without a vote'}, wanted ${pair.wantedWitness ?? 'none'}`
  return `register ${latest ? JSON.stringify(latest) : 'empty'}; ${host('a')}; ${host('b')}; ${witness}`
}
