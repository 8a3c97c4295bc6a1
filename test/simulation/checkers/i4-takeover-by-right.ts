import { proposerOf } from '../../../shared/protocol/ballot.ts'
import { type MakeChecker, Violation } from './check.ts'
import { isDecree, show } from './register-truth.ts'

/**
 * I4: a takeover is chosen only where the taker was the successor in the value before, or where the primary has durably
 * resigned from that value. Whoever proposed the value first
 * tells a Takeover (the new primary) from a Handover (the old one); a decree is an operator's.
 */
export const takeoverByRight: MakeChecker = pair => {
  const proposers = new Map<string, string>()
  return {
    name: 'I4',
    step: (_, before, after) => {
      const value = after.round?.value
      if (value == null || before.round?.value === value) return
      const key = `${value.gen}.${value.epoch}.${value.version}.${value.primary}`
      if (!proposers.has(key)) proposers.set(key, proposerOf(after.round!.ballot) ?? '')
    },
    chosen: accepted => {
      const { value, ballot } = accepted
      const before = pair.checks.register.before(value)?.value
      if (isDecree(ballot) || before === undefined || before.primary === value.primary) return
      const key = `${value.gen}.${value.epoch}.${value.version}.${value.primary}`
      const resigned = pair.hosts[before.primary].file.safe.resigned === before.version
      if (proposers.get(key) === value.primary && !before.successor && !resigned) {
        throw new Violation('I4', `${value.primary} took over by ${show(value)} although before it was ${show(before)}`)
      }
    },
  }
}
