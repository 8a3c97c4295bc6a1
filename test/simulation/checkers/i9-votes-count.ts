import { showBallot } from '../../../shared/protocol/ballot.ts'
import type { Ballot, Durable } from '../../../shared/protocol/types.ts'
import type { Host } from '../host.ts'
import { type MakeChecker, Violation } from './check.ts'

/**
 * I9: an amnesic acceptor never votes. Seen from two sides: no answer leaves before what it says is on disk, and what a
 * host takes for committed lies on the disks of a quorum of admitted stores.
 */
export const votesCount: MakeChecker = pair => {
  const demand = (host: Host, ok: boolean, what: string, ballot: Ballot): void => {
    if (!ok) throw new Violation('I9', `${host.node} says ${what} ${showBallot(ballot)}, which is not on its disk`)
  }
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
      const { safe } = host.file
      switch (message.kind) {
        case 'promise':
          return demand(host, safe.promised >= message.ballot, 'promise', message.ballot)
        case 'accepted':
          return demand(host, (safe.acc?.ballot ?? 0) >= message.ballot, 'accepted', message.ballot)
        case 'prepare':
        case 'cas':
          return demand(
            host,
            safe.lastOwn >= message.ballot && safe.promised >= message.ballot,
            message.kind,
            message.ballot,
          )
        case 'accept':
          return demand(host, (safe.acc?.ballot ?? 0) >= message.ballot, 'accept', message.ballot)
        case 'resign':
          if (safe.resigned !== message.version) throw new Violation('I9', `${host.node} resigns before it is on disk`)
          return
        case 'learn':
          return demandChosen(host, message.ballot, 'tells of')
        default:
          return
      }
    },
  }
}
