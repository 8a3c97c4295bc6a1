import { genHeard, waitsForGiveUp } from '../../shared/protocol/facts.ts'
import { statusOf } from '../../shared/protocol/status.ts'
import type { DataNode, Effect, Voters } from '../../shared/protocol/types.ts'
import type { Host } from './host.ts'
import type { Pair } from './pair.ts'
import type { Random } from './random.ts'

const careEveryMs = 500

/**
 * The person in charge: sets the pair up, replaces what is broken, and follows the advice that the product gives. He
 * keeps the other host off until a forced takeover is sealed, and lets data go only when he is asked to.
 */
export class Operator {
  private readonly pair: Pair
  private readonly random: Random
  private off: Host | null = null
  /** The newest force was refused: nothing was changed by it. */
  private refused = false
  /** The newest gen that a force made. */
  private forcedGen = 0
  /** The gen that it was to end. */
  private forcedFrom = 0
  /** How often a switchover was asked for, by the epoch that was named. */
  private readonly asked = new Map<number, number>()
  private readonly letGo = new Set<DataNode>()
  private due = new Map<string, number>()
  private witnessGivenUp = false

  constructor(pair: Pair, random: Random) {
    this.pair = pair
    this.random = random
  }

  setUp(): void {
    const first = this.pair.hosts[this.pair.options.primary]
    first.cluster.create()
    this.pair.each(host => host.boot())
    const look = () => {
      if (first.file.content.acc === null && this.pair.named === null) first.agent.command({ command: 'init' })
      if (this.pair.named === null) this.pair.world.after(500, look)
    }
    look()
    this.care()
  }

  // ------------------------------------------------------------ commands

  switchover(host: Host): void {
    const epoch = host.state.durable.known?.value.epoch ?? 0
    this.ask(host, epoch)
  }

  private ask(host: Host, epoch: number): void {
    this.asked.set(epoch, (this.asked.get(epoch) ?? 0) + 1)
    host.agent.command({ command: 'switchover', epoch })
  }

  /** A command that was lost for a while and arrives again: an old epoch, sent by a broker that means well. */
  repeatOld(host: Host): void {
    const epoch = host.state.durable.known?.value.epoch ?? 0
    for (const old of this.asked.keys()) if (old !== epoch) host.agent.command({ command: 'switchover', epoch: old })
    const gen = host.state.durable.known?.value.gen ?? 0
    if (gen > 1) {
      host.agent.command({ command: 'force', gen: gen - 1, epoch, withWitness: true })
      host.agent.command({ command: 'giveUp', gen: gen - 1 })
    }
  }

  switchoversFor(epoch: number): number {
    return this.asked.get(epoch) ?? 0
  }

  /** Forced takeover: the other host goes off and stays off until the new gen is sealed. */
  force(host: Host, options: { withWitness: boolean }): void {
    const known = host.state.durable.known?.value
    const { world } = this.pair
    const { peer } = host
    if ((this.off !== null && this.off !== peer) || host.agent.process !== 'running' || known === undefined) return
    // Not promised (infra/docs/guarantees.md): forcing a host that could not hear of an earlier forced takeover. Where it
    // did, by the witness, it refuses.
    if (genHeard(host.state) < this.forcedGen) return
    this.off = peer
    peer.powerCut()
    const { gen, epoch } = known
    const decided = () => (host.file.content.acc?.value.gen ?? 0) > gen
    this.refused = false
    this.forcedFrom = gen
    // Without an answer nobody knows whether it was done: the other host stays off until that is seen.
    const ask = () => {
      if (decided()) {
        this.forcedGen = Math.max(this.forcedGen, host.file.content.acc?.value.gen ?? 0)
        return this.awaitSeal(host)
      }
      if (this.refused) return this.release()
      const now = host.state.durable.known?.value
      host.agent.command({ command: 'force', gen, epoch: now?.epoch ?? epoch, withWitness: options.withWitness })
      world.after(1000, ask)
    }
    world.after(this.random.spread(50, 3000), ask)
  }

  private awaitSeal(host: Host): void {
    const { state } = host
    const says = host.agent.process === 'running' && state.started && statusOf(state, host.clock.now).sealed
    if (says) return this.release()
    if (this.off !== null && this.cannotBeSealed(host, this.off)) return this.renew(this.off)
    this.pair.world.after(200, () => this.awaitSeal(host))
  }

  /** Nobody whose answer would seal it is left but the host that is off: it alone was the pair, or its witness is gone. */
  private cannotBeSealed(host: Host, off: Host): boolean {
    const voters = host.file.content.overruled?.voters
    if (voters === undefined) return false
    const { witness } = this.pair
    // One that was replaced is a member no more, and asked by nobody.
    const asked = host.state.durable.known?.value.voters.w
    if (asked !== undefined && asked !== voters.w) return true
    return !witness.has(voters.w) || off.file.content.inc !== voters[off.node]
  }

  /** It gets new disks before it comes back, where that has not happened yet. */
  private renew(off: Host): void {
    const { overruled } = off.peer.file.content
    if (overruled?.voters[off.node] === off.file.content.inc) {
      this.letGo.add(off.node)
      off.reimage()
      this.pair.count('host re-imaged')
    }
    this.release()
  }

  private release(): void {
    const host = this.off
    this.off = null
    if (host !== null) this.pair.world.after(this.random.spread(1, 2000), () => host.boot())
  }

  keepsOff(host: Host): boolean {
    return this.off === host
  }

  get holdsBack(): boolean {
    return this.off !== null
  }

  gaveUp(node: DataNode): boolean {
    return this.letGo.has(node)
  }

  hears(host: Host, effect: Effect & { do: 'answer' }): void {
    if (!effect.ok && effect.why.startsWith('the command is meant for')) this.pair.count('stale command refused')
    if (effect.ok && effect.command === 'giveUp') this.pair.count('given up')
    if (effect.ok && effect.command === 'cancelSwitchover') this.pair.count('switchover called off')
    const gen = host.state.durable.known?.value.gen ?? 0
    if (!effect.ok && effect.command === 'force' && host === this.off?.peer && gen <= this.forcedFrom) {
      this.refused = true
      if (effect.why.includes('has heard nothing')) this.pair.count('force over an unheard gen refused')
    }
  }

  // ------------------------------------------------------------ care

  private care(): void {
    this.pair.world.after(careEveryMs, () => {
      this.pair.each(host => this.lookAfter(host))
      this.lookAfterWitness()
      this.lookAfterQuorum()
      this.care()
    })
  }

  /** Calls `act` once `needed` has been so for a while: people are not fast. */
  private after(key: string, options: { needed: boolean; least: number; most: number }, act: () => void): void {
    if (!options.needed) {
      this.due.delete(key)
      return
    }
    const at = this.due.get(key)
    if (at === undefined) this.due.set(key, this.pair.world.now + this.random.between(options.least, options.most))
    else if (this.pair.world.now >= at) {
      this.due.delete(key)
      act()
    }
  }

  private lookAfter(host: Host): void {
    const { node } = host
    const running = host.agent.process === 'running' && host.state.started
    // The configuration on the host is read when its agent gets to it.
    if (running && host.state.witness.wanted !== this.pair.wantedWitness && this.random.chance(0.5)) {
      host.agent.witnessIs(this.pair.wantedWitness)
    }
    const asks = running && waitsForGiveUp(host.state)
    this.after(`give up ${node}`, { needed: asks, least: 500, most: 4000 }, () => {
      this.letGo.add(node)
      host.agent.command({ command: 'giveUp', gen: host.state.durable.known?.value.gen ?? 0 })
    })
    const broken = (host.dataDisk.ioError || host.registerDisk.ioError) && this.replaceable(host)
    this.after(`replace ${node}`, { needed: broken, least: 1000, most: 10_000 }, () => {
      if (!this.replaceable(host)) return
      host.reimage()
      this.pair.count('host re-imaged')
      this.pair.world.after(2000, () => host.boot())
    })
  }

  /** New disks only where the other host serves and has everything. */
  replaceable(host: Host): boolean {
    const { peer } = host
    return (
      this.off === null &&
      peer.serves &&
      this.pair.named === peer.node &&
      peer.cluster.process === 'primary' &&
      this.pair.acknowledged.lackingIn(peer.cluster.log) === null
    )
  }

  /** So many voters are gone for good that no round can ever end: nothing but force goes on from there. */
  private lookAfterQuorum(): void {
    const { pair } = this
    const { named } = pair
    if (named === null) return
    const host = pair.hosts[named]
    const { hosts, witness } = pair
    const has = ({ w, a, b }: Voters): boolean => {
      const alive = [
        w === undefined ? null : w === witness.inc || witness.has(w),
        a === undefined ? null : a === hosts.a.file.content.inc,
        b === undefined ? null : b === hosts.b.file.content.inc,
      ].filter(one => one !== null)
      return alive.length === 0 || alive.filter(one => one).length * 2 > alive.length
    }
    // A change of members that is in doubt needs the majority before it as well as its own.
    const { known, acc } = host.state.durable
    const lost = [known, acc].some(one => one !== null && !has(one.value.voters))
    const stuck = lost && host.agent.process === 'running'
    this.after('quorum', { needed: stuck, least: 5000, most: 15_000 }, () => this.force(host, { withWitness: false }))
  }

  private lookAfterWitness(): void {
    const alarm = (host: Host) => (host.state.duty.said.witness ?? '').includes('rolled back')
    const { hosts, witness } = this.pair
    const lost = witness.lost || witness.otherTimeline || alarm(hosts.a) || alarm(hosts.b)
    this.after('witness', { needed: lost && !this.witnessGivenUp, least: 2000, most: 20_000 }, () =>
      this.replaceWitness(),
    )
  }

  /** The configuration names no witness any more: the pair has to go on without one. */
  giveWitnessUp(): void {
    this.witnessGivenUp = true
    this.pair.wantedWitness = null
    this.pair.count('witness given up')
  }

  /** A fresh row with a new incarnation, named in both hosts' configuration one after the other. */
  replaceWitness(): void {
    this.pair.witness.replace()
    this.nameWitness()
    this.pair.count('witness replaced')
  }

  /** Another one, beside which the old one lives on. */
  changeWitness(): void {
    this.pair.witness.replaceBeside()
    this.nameWitness()
    this.pair.count('witness replaced')
  }

  /** A change is taken back: the one before is named again, under the incarnation that it had. */
  changeWitnessBack(): void {
    if (!this.pair.witness.goBack()) return
    this.nameWitness()
    this.pair.count('witness named again')
  }

  /** The one that was given up is wanted after all, as it is. */
  wantWitnessAgain(): void {
    this.nameWitness()
    this.pair.count('witness named again')
  }

  private nameWitness(): void {
    this.witnessGivenUp = false
    this.pair.wantedWitness = this.pair.witness.inc
  }
}
