import type { Host } from '../host.ts'
import type { Reach } from '../wal.ts'
import { contains } from '../wal.ts'
import { type MakeChecker, Violation } from './check.ts'

/**
 * I2: every acknowledged write is in the log of whoever serves later, and the last copy of one is never thrown away.
 * What a forced takeover gave up is not asked for any more, but its only copy stays until the operator lets it go.
 */
export const acknowledgedKept: MakeChecker = pair => {
  const givenUp: { tl: Parameters<Reach['note']>[0]; lsn: number }[] = []
  const look = (host: Host): void => {
    if (host.cluster.process !== 'primary') return
    // A guest whose clock stood still may show its old state for a moment, but the register no longer names it.
    if (pair.options.runClass === 'wild' && pair.named !== host.node) return
    const lack = pair.acknowledged.lackingIn(host.cluster.log)
    if (lack !== null) {
      throw new Violation(
        'I2',
        `${host.node} serves with a log up to ${host.cluster.log.tl.number}/${host.cluster.log.end} and lacks the acknowledged write at ${lack.tl.number}/${lack.lsn}`,
      )
    }
  }
  return {
    name: 'I2',
    gateOpened: look,
    answers: host => {
      if (host.gate.isOpen) look(host)
    },
    forced: node => {
      const { cluster } = pair.hosts[node]
      givenUp.push(...pair.acknowledged.cutTo(cluster.log))
      pair.seen.cutTo(cluster.log)
    },
    replaced: (host, next) => {
      const lack = pair.acknowledged.lackingIn(next)
      if (lack !== null && contains(host.cluster.log, lack.tl, lack.lsn)) {
        throw new Violation(
          'I2',
          `${host.node} throws away its copy of the acknowledged write at ${lack.tl.number}/${lack.lsn}`,
        )
      }
      const kept = givenUp.find(
        lost => contains(host.cluster.log, lost.tl, lost.lsn) && !contains(next, lost.tl, lost.lsn),
      )
      if (kept !== undefined && !pair.operator.gaveUp(host.node)) {
        throw new Violation('I2', `${host.node} throws away a write given up by force before the operator said so`)
      }
    },
    end: () => {
      const named = pair.named
      if (named !== null) look(pair.hosts[named])
    },
  }
}
