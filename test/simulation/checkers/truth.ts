import { genOf } from '../../../shared/protocol/ballot.ts'
import { statusOf } from '../../../shared/protocol/status.ts'
import type { AcceptorState, Voters } from '../../../shared/protocol/types.ts'
import type { Host } from '../host.ts'
import type { Pair } from '../pair.ts'
import { type MakeChecker, Violation } from './check.ts'

/** How late a host may learn of what happens elsewhere, in leases: nothing travels faster than a missed heartbeat. */
const lagLeases = 1
/** A database's death or hang is noticed within a view and its deadline. */
const databaseLagMs = 1500
/** The witness is probed every 10 s and said to be away 3 s later. */
const witnessLagMs = 40_000

/** What a user is shown is never better than the truth; what is not known is not shown as good. */
export const shownIsTrue: MakeChecker = pair => {
  const ableAt = { a: 0, b: 0 }
  const servedAt = { a: 0, b: 0 }
  /** Since when it is shown as serving. */
  const shownAt = { a: 0, b: 0 }
  let witnessAt = 0
  /** The members of the value that a forced takeover overruled, by the gen it made. */
  const overruled = new Map<number, Voters>()
  /** "Sealed" means: the members of the older gen can gather no majority any more, so the other host may be let on. */
  const demandSealed = (host: Host): void => {
    const known = host.state.durable.known?.value
    const voters = known === undefined ? undefined : overruled.get(known.gen)
    if (known === undefined || voters === undefined || known.primary !== host.node) return
    const { state, former } = pair.witness
    const { content } = host.peer.file
    const older = (store: AcceptorState): number =>
      genOf(Math.max(store.promised, store.acc?.ballot ?? 0)) < known.gen ? 1 : 0
    const other = voters[host.peer.node] === content.inc ? older(content) : 0
    const named = [state, former].find(one => one !== null && one.inc === voters.w)
    // One that was set back is refused by whoever was answered more by it before, and so gives the older gen no vote.
    const isRefused = voters.w !== undefined && genOf(host.peer.file.safe.wSeen[voters.w] ?? 0) >= known.gen
    const witness = named && !isRefused ? older(named) : 0
    if ((other + witness) * 2 <= Object.keys(voters).length) return
    throw new Violation(
      'truth',
      `${host.node} shows gen ${known.gen} as sealed, but the older one still has a majority`,
    )
  }
  const look = (host: Host): void => {
    const { now } = pair.world
    const { node } = host
    if (host.power !== 'on' || host.agent.process !== 'running' || !host.state.started) {
      shownAt[node] = 0
      return
    }
    const status = statusOf(host.state, host.clock.now)
    shownAt[node] = status.serving ? shownAt[node] || now : 0
    const falseMs = status.serving ? now - Math.max(servedAt[node], shownAt[node]) : 0
    if (falseMs > databaseLagMs)
      throw new Violation('truth', `${node} is shown as serving, but has not been for ${falseMs.toFixed(0)} ms`)
    if (status.sealed) demandSealed(host)
    if (status.protection !== 'protected') return
    const latest = pair.checks.register.latest?.value
    const lack = pair.acknowledged.lackingIn(host.peer.cluster.log)
    if (lack !== null && isAble(host.peer))
      throw new Violation('truth', `${host.node} shows "protected", but the backup lacks the write at ${lack.lsn}`)
    if (latest === undefined || !latest.successor || latest.primary !== host.node) {
      throw new Violation('truth', `${host.node} shows "protected", but nobody may succeed it`)
    }
    const awayMs = now - ableAt[host.peer.node]
    if (awayMs > lagLeases * host.agent.timing.leaseMs) {
      throw new Violation(
        'truth',
        `${host.node} shows "protected", but the backup could not take over for ${awayMs.toFixed(0)} ms`,
      )
    }
    if (now - witnessAt > witnessLagMs)
      throw new Violation('truth', `${host.node} shows "protected", but the witness is away`)
  }
  return {
    name: 'truth',
    step: (host, _before, _after, event, effects) => {
      // One that comes and goes between two samples answers all the same.
      if (event.event === 'message' && event.from === 'w') witnessAt = pair.world.now
      for (const effect of effects) {
        if (effect.do === 'send' && effect.message.kind === 'ack' && effect.message.promise)
          ableAt[host.node] = pair.world.now
      }
    },
    chosen: (accepted, before) => {
      const { gen } = accepted.value
      if (before !== null && before.value.gen < gen && !overruled.has(gen)) overruled.set(gen, before.value.voters)
    },
    sample: () => {
      const { now } = pair.world
      pair.each(host => {
        if (host.serves) servedAt[host.node] = now
        if (isAble(host)) ableAt[host.node] = now
      })
      if (pair.witness.votes) witnessAt = now
      pair.each(look)
    },
  }
}

const isAble = (host: Host): boolean =>
  host.power === 'on' && host.agent.process === 'running' && host.cluster.process === 'standby' && !host.cluster.stopped

export type { Pair }
