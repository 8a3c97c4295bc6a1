import type { Value } from '../../../shared/protocol/types.ts'
import { type MakeChecker, Violation } from './check.ts'
import { isDecree, show } from './register-truth.ts'

const nodes = ['a', 'b', 'w'] as const

/** Another store in the place of one is two changes: one goes, one comes. */
function changed(x: Value, y: Value): number {
  let changes = 0
  for (const node of nodes) {
    if (x.voters[node] === y.voters[node]) continue
    changes += x.voters[node] === undefined || y.voters[node] === undefined ? 1 : 2
  }
  return changes
}

/**
 * I11: members change one at a time, only from a value that was chosen, and only while nobody may succeed: two majorities
 * always have a member in common, and none of the two sets holds a successor.
 */
export const membersOneByOne: MakeChecker = pair => ({
  name: 'I11',
  sent: (host, _, message) => {
    const { round } = host.state
    if (message.kind !== 'accept' || round?.best == null || message.ballot !== round.ballot) return
    const { best } = round
    if (changed(message.value, best.value) === 0) return
    if (!pair.checks.register.isChosen(best.ballot)) {
      throw new Violation('I11', `${host.node} changes members of ${show(best.value)}, which was not chosen`)
    }
    if (best.value.successor) throw new Violation('I11', `${host.node} changes members beside a successor`)
  },
  chosen: accepted => {
    const { value, ballot } = accepted
    const before = pair.checks.register.before(value)?.value
    if (before === undefined || isDecree(ballot)) return
    if (changed(value, before) > 1) throw new Violation('I11', `${show(value)} changes two members of ${show(before)}`)
  },
})
