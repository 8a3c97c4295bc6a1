import { type MakeChecker, Violation } from './check.ts'

/**
 * I12: a primary gives its place up (Handover, Resign) only when no process of its database is left and its gate is shut;
 * and whoever says that it accepted the other host as primary has its gate shut and its database killed by then.
 */
export const deadBeforeGivenUp: MakeChecker = () => ({
  name: 'I12',
  sent: (host, _, message) => {
    const { cluster, gate, node, state } = host
    const handsOver = message.kind === 'accept' && state.round?.change === 'handover' && message.value.primary !== node
    if (handsOver || message.kind === 'resign') {
      const what = message.kind === 'resign' ? 'resigns' : 'hands over'
      if (cluster.process !== 'none')
        throw new Violation('I12', `${node} ${what}, but its database is ${cluster.process}`)
      if (gate.isOpen) throw new Violation('I12', `${node} ${what} with its gate open`)
    }
    const named = host.file.safe.acc?.value.primary
    if (message.kind !== 'accepted' || named !== host.peer.node) return
    const what = `${node} says that it accepted ${named} as primary`
    if (gate.isOpen) throw new Violation('I12', `${what}, with its gate open`)
    // The kill has been asked for: from then on no process of it answers anybody.
    if (cluster.process === 'primary' && !cluster.stopped) throw new Violation('I12', `${what}, and its database runs`)
  },
})
