import type { Host } from '../host.ts'
import type { Pair } from '../pair.ts'
import { type Act, nothing } from './fault.ts'
import { flap } from './link-faults.ts'

/** What befalls the witness, and what people ask of the pair. */

const witnessDown: Act = ({ pair }) => {
  pair.witness.down++
  return () => pair.witness.backUp()
}

const witnessSlow: Act = ({ pair, fault }) => {
  pair.witness.slowMs = 10 * 200 ** fault.x
  return () => {
    pair.witness.slowMs = 0
  }
}

const witnessFlap: Act = ({ pair, fault }) =>
  flap(pair, by => (by === 1 ? pair.witness.down++ : pair.witness.backUp()), 50 * 100 ** fault.y)

/** The row is lost: until there is a new one nothing answers. */
const witnessAmnesia: Act = ({ pair }) => {
  pair.count('witness amnesia')
  pair.witness.loseRow()
  return nothing
}

const witnessRestored: Act = ({ pair }) => {
  pair.count('witness restored')
  pair.witness.otherTimeline = true
  return nothing
}

/** Only to a state in which every answer that was given since has been seen by both hosts: what the protocol can notice. */
function setWitnessBack(pair: Pair): void {
  const { witness } = pair
  const top = witness.state
  const seenBy = (host: Host) => host.file.safe.wSeen[witness.inc] ?? 0
  const both = Math.min(seenBy(pair.hosts.a), seenBy(pair.hosts.b))
  const done = witness.rollBack(state => {
    const ballot = state.acc?.ballot ?? 0
    return ballot > 0 && ballot < both && (top.acc?.ballot ?? 0) <= both && top.promised <= both
  })
  if (done) pair.count('witness set back')
}

const callOff: Act = ({ pair, host, fault }) => {
  pair.operator.switchover(host)
  pair.world.after(fault.x * 60, () => host.agent.command({ command: 'cancelSwitchover' }))
  return nothing
}

const maintenance: Act = ({ pair, host, fault }) => {
  pair.count('maintenance')
  host.agent.command({ command: 'maintenance', until: host.clock.now + fault.ms })
  return nothing
}

export const witnessAndOperator = {
  witnessDown,
  witnessFlap,
  witnessSlow,
  witnessAmnesia,
  witnessRestored,
  witnessSetBack: ({ pair }) => {
    setWitnessBack(pair)
    return nothing
  },
  /** By a new row; or by another one, and back again. */
  witnessReplace: ({ pair: { operator }, fault }) => {
    if (fault.x < 0.5) {
      operator.replaceWitness()
      return nothing
    }
    operator.changeWitness()
    return () => operator.changeWitnessBack()
  },
  /** The pair is to do without a witness for a while. */
  witnessGivenUp: ({ pair, fault }) => {
    pair.operator.giveWitnessUp()
    return () => (fault.y < 0.5 ? pair.operator.replaceWitness() : pair.operator.wantWitnessAgain())
  },
  switchover: ({ pair, host, fault }) => {
    pair.operator.switchover(fault.x < 0.5 ? host : host.peer)
    return nothing
  },
  callOff,
  repeatCommand: ({ pair, host }) => {
    pair.operator.repeatOld(host)
    return nothing
  },
  maintenance,
  force: ({ pair, host, fault }) => {
    pair.operator.force(host, { withWitness: fault.x < 0.75 })
    return nothing
  },
} satisfies { [kind: string]: Act }
