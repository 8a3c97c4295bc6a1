import { showBallot } from '../../../shared/protocol/ballot.ts'
import { notOnDisk } from '../../../shared/protocol/invariants.ts'
import type { Ballot, Durable } from '../../../shared/protocol/types.ts'
import type { Host } from '../host.ts'
import { type MakeChecker, Violation } from './check.ts'

/**
 * I9: an amnesic acceptor never votes. Seen from two sides: no answer leaves before what it says is on disk, and what a
 * host takes for committed lies on the disks of a quorum of admitted stores.
 */
export const votesCount: MakeChecker = pair => {
  const demandChosen = (host: Host, ballot: Ballot, how: string): void => {
    if (!pair.checks.register.isChosen(ballot)) {
      throw new Violation('I9', `${host.node} ${how} ${showBallot(ballot)}, which no quorum of admitted stores holds`)
    }
  }
  const knownOf = new Map<string, Ballot>()
  const checkKnown = (host: Host, durable: Durable): void => {
    const ballot = durable.known?.ballot ?? 0
    if (ballot === 0 || knownOf.get(durable.inc) === ballot) return
    knownOf.set(durable.inc, ballot)
    demandChosen(host, ballot, 'takes for committed')
  }
  return {
    name: 'I9',
    durable: checkKnown,
    sent: (host, _, message) => {
      const missing = notOnDisk(host.file.safe, message)
      if (missing !== null) throw new Violation('I9', `${host.node} ${missing}`)
      if (message.kind === 'learn') demandChosen(host, message.ballot, 'tells of')
    },
  }
}
