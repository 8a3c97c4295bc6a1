import type { Host } from '../host.ts'
import { type MakeChecker, Violation } from './check.ts'

/** I1: at most one host serves at any moment, reads included. */
export const oneServer: MakeChecker = pair => {
  const look = (host: Host): void => {
    if (host.serves && host.peer.serves) {
      throw new Violation(
        'I1',
        `both hosts serve: ${host.node} (${host.cluster.process}) and ${host.peer.node} (${host.peer.cluster.process})`,
      )
    }
  }
  return {
    name: 'I1',
    gateOpened: host => look(host),
    answers: host => look(host),
    read: host => look(host),
    sample: () => look(pair.hosts.a),
  }
}
