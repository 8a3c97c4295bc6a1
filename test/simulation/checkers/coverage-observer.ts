import { proposerOf } from '../../../shared/protocol/ballot.ts'
import type { HostState } from '../../../shared/protocol/state.ts'
import type { Effect } from '../../../shared/protocol/types.ts'
import type { MakeChecker } from './check.ts'
import { isDecree } from './register-truth.ts'

/** Counts what the runs have seen; demands nothing. */
export const observeCoverage: MakeChecker = pair => {
  const tailSaid = { a: false, b: false }
  const leaseSaid = { a: false, b: false }
  const frozenSince = { a: false, b: false }
  return {
    name: 'coverage',
    chosen: (accepted, before) => {
      if (before === null || accepted.ballot < before.ballot) return
      const was = before.value
      const is = accepted.value
      if (was.version === is.version) return
      if (isDecree(accepted.ballot)) {
        pair.count('force')
        if (is.voters.w === undefined) pair.count('force without the witness')
        return
      }
      if (was.gen !== is.gen) return
      const size = (v: typeof is) => Object.keys(v.voters).length
      if (was.primary !== is.primary) {
        const resigned = pair.hosts[was.primary].file.content.resigned === was.version
        // Driven again by the other one it would count as a hand-over: rare enough.
        if (proposerOf(accepted.ballot) === is.primary) pair.count(resigned ? 'takeover after a resign' : 'takeover')
        else pair.count(was.successor ? 'hand-over' : 'hand-over while pinned')
      } else if (size(is) > size(was)) pair.count('member added')
      else if (size(is) < size(was)) pair.count('member removed')
      else if (is.successor && !was.successor) {
        pair.count('grow')
        const { profile } = pair.hosts[is.primary].agent.timing
        if (profile !== pair.options.profile) pair.count('grow with another profile')
      } else if (was.successor && !is.successor) pair.count('shrink')
    },
    step: (host, before, after, event, effects) => {
      const { node } = host
      for (const effect of effects) {
        if (effect.do === 'gate') {
          if (effect.set === 'frozen' && before.gate.set === 'open') {
            frozenSince[node] = true
            pair.count('freeze')
          } else if (effect.set === 'open' && frozenSince[node]) {
            frozenSince[node] = false
            pair.count('thaw')
          } else if (effect.set === 'closed') frozenSince[node] = false
        }
      }
      if (event.event === 'start') {
        tailSaid[node] = false
        leaseSaid[node] = false
        if (event.durable.leaseMs > after.timing.leaseMs) pair.count('longer promises waited out')
      }
      if (effects.some(refusesFor('leases of')) && !leaseSaid[node]) {
        leaseSaid[node] = true
        pair.count('leases of two lengths refused')
      }
      if (after.backup.promiseUntil === 0 && effects.some(refusesFor('lost its tail')) && !tailSaid[node]) {
        tailSaid[node] = true
        pair.count('lost tail refused')
      }
      if (before === after || event.event === 'start') return
      if (adoptsUnknown(before, after)) pair.count('adopted an unknown outcome')
      if (after.witness.pinned && !before.witness.pinned) pair.count('pin')
      if (!after.witness.pinned && before.witness.pinned) pair.count('unpin')
      if (after.lease.abdicated && !before.lease.abdicated) pair.count('abdication')
      if (after.durable.resigned !== before.durable.resigned && after.durable.resigned !== 0) pair.count('resign')
      if (after.durable.overruled === null && before.durable.overruled !== null) pair.count('sealed')
      if (after.database.passedBy !== '' && before.database.passedBy === '' && before.gate.set === 'frozen')
        pair.count('hold')
      if (event.event === 'databaseDone' && before.database.op?.op.op === 'startPrimary' && event.result.ok)
        pair.count('restart in place')
      if (after.vacate?.kind === 'planned' && before.vacate === null) pair.count('switchover')
    },
  }
}

const refusesFor =
  (why: string) =>
  (effect: Effect): boolean =>
    effect.do === 'send' && effect.message.kind === 'ack' && !effect.message.promise && effect.message.why.includes(why)

/** A round found a value of which nobody knew whether it was chosen, and commits it as it is. */
function adoptsUnknown(before: HostState, after: HostState): boolean {
  const { round } = after
  if (round === null || round.phase !== 'accept' || before.round?.phase === 'accept' || round.best === null)
    return false
  return round.value === round.best.value && round.best.ballot > (before.durable.known?.ballot ?? 0)
}
