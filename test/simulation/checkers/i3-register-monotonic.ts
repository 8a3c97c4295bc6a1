import { isOlder } from '../../../shared/protocol/facts.ts'
import type { DataNode, Value } from '../../../shared/protocol/types.ts'
import { type MakeChecker, Violation } from './check.ts'
import { show } from './register-truth.ts'

/**
 * I3: what a member knows to be committed never goes back; the chosen values grow with their ballots; an epoch has one
 * primary. That a ballot and a version have one value is seen where they are counted.
 */
export const registerMonotonic: MakeChecker = () => {
  const known = new Map<string, Value>()
  const primaryOf = new Map<string, DataNode>()
  return {
    name: 'I3',
    durable: (host, durable) => {
      const value = durable.known?.value
      if (value === undefined) return
      const before = known.get(durable.inc)
      if (before === value) return
      if (before !== undefined && isOlder(value, before)) {
        throw new Violation('I3', `${host.node} went back from ${show(before)} to ${show(value)}`)
      }
      known.set(durable.inc, value)
    },
    chosen: (accepted, before) => {
      const { value } = accepted
      if (before !== null && accepted.ballot > before.ballot && isOlder(value, before.value)) {
        throw new Violation('I3', `after ${show(before.value)} an older value was chosen: ${show(value)}`)
      }
      const key = `${value.gen}.${value.epoch}`
      const primary = primaryOf.get(key) ?? value.primary
      if (primary !== value.primary) throw new Violation('I3', `epoch ${key} has two primaries`)
      primaryOf.set(key, primary)
    },
  }
}
