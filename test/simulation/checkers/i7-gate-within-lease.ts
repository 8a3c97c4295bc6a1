import { otherNode } from '../../../shared/protocol/nodes.ts'
import type { DataNode } from '../../../shared/protocol/types.ts'
import { type MakeChecker, Violation } from './check.ts'
import { show } from './register-truth.ts'

/**
 * I7: a gate is open only while the other host has promised to wait, or nobody may succeed; late application included.
 * The promise is measured where it was given, on the clock of the host that gave it.
 */
export const gateWithinLease: MakeChecker = pair => {
  const promisedUntil: { [node in DataNode]: number } = { a: 0, b: 0 }
  const demand = (node: DataNode, until: number, why: string): void => {
    const end = promisedUntil[otherNode(node)]
    if (until <= end) return
    throw new Violation(
      'I7',
      `the gate of ${node} stays open until ${until.toFixed(1)}, the promise ends at ${end.toFixed(1)}: ${why}`,
    )
  }
  return {
    name: 'I7',
    step: (host, _, __, event, effects) => {
      for (const effect of effects) {
        if (effect.do === 'send' && effect.message.kind === 'ack' && effect.message.promise) {
          const until = host.clock.trueTimeOf(event.now + host.agent.timing.leaseMs)
          // A shorter one, by a new start with another profile, takes no earlier one back.
          promisedUntil[host.node] = Math.max(promisedUntil[host.node], until)
        }
      }
    },
    gateOpened: (host, until) => {
      const latest = pair.checks.register.latest?.value
      if (latest === undefined || latest.primary !== host.node) {
        throw new Violation(
          'I7',
          `the gate of ${host.node} opens while the register says ${latest ? show(latest) : 'nothing'}`,
        )
      }
      if (latest.successor) demand(host.node, until, 'a grant was applied')
    },
    chosen: (accepted, before) => {
      // Completed on a disk that was slow, after a later value was chosen: it decides nothing any more.
      if (before !== null && accepted.ballot < before.ballot) return
      const { value } = accepted
      const gate = pair.hosts[value.primary].gate
      if (value.successor && gate.isOpen) demand(value.primary, gate.openUntil, 'a successor was chosen')
      if (before === null || before.value.primary === value.primary) return
      const old = pair.hosts[before.value.primary]
      if (old.power === 'on' && old.gate.isOpen)
        throw new Violation('I7', `the gate of ${old.node} is open although ${show(value)} was chosen`)
    },
  }
}
