import type { Host } from '../simulation/host.ts'
import type { Pair } from '../simulation/pair.ts'
import { reach } from '../simulation/run.ts'

/** A course of steps that takes a pair from one settled state to another. */
export interface Plan {
  name: string
  /** Brings a protected pair to where the plan begins; absent: it begins there. `null`: before the set-up. */
  prepare?: ((pair: Pair) => void) | null
  begin: (pair: Pair) => void
  /** The plan has come to its end, without an interruption. */
  isOver: (pair: Pair) => boolean
}

const chosenIn = (pair: Pair) => pair.checks.register.latest?.value ?? null
const primaryOf = (pair: Pair): Host => pair.hosts[pair.named ?? pair.options.primary]
const backupOf = (pair: Pair): Host => primaryOf(pair).peer

/** Far above what each step of a preparation takes. */
const prepareLimitMs = 60_000

function until(pair: Pair, what: string, wanted: () => boolean): void {
  if (!reach(pair, wanted, prepareLimitMs)) throw new Error(`the preparation did not come so far that ${what}`)
}

/** The primary loses power; the other one serves. */
function lose(pair: Pair): void {
  const backup = backupOf(pair)
  primaryOf(pair).powerCut()
  until(pair, 'the backup serves', () => backup.serves)
}

export const plans: readonly Plan[] = [
  {
    name: 'set-up',
    prepare: null,
    begin: pair => pair.operator.setUp(),
    isOver: pair => pair.isProtected(),
  },
  {
    name: 'shrink and grow (maintenance)',
    begin: pair => primaryOf(pair).agent.command({ command: 'maintenance', until: primaryOf(pair).clock.now + 1500 }),
    isOver: pair => pair.isProtected() && pair.coverage.counts.grow === 2,
  },
  {
    name: 'shrink: the backup is lost',
    begin: pair => backupOf(pair).powerCut(),
    isOver: pair => chosenIn(pair)?.successor === false && primaryOf(pair).serves,
  },
  {
    name: 'pin: the witness is lost',
    begin: pair => {
      pair.witness.down++
      pair.world.after(60_000, () => {
        pair.witness.down--
      })
    },
    isOver: pair => pair.isProtected() && pair.coverage.counts.unpin === 1,
  },
  {
    name: 'switchover',
    begin: pair => pair.operator.switchover(primaryOf(pair)),
    isOver: pair => chosenIn(pair)?.epoch === 2 && pair.isProtected(),
  },
  {
    name: 'switchover asked for at the backup',
    begin: pair => pair.operator.switchover(backupOf(pair)),
    isOver: pair => chosenIn(pair)?.epoch === 2 && pair.isProtected(),
  },
  {
    name: 'hand-over: the database dies',
    begin: pair => primaryOf(pair).cluster.losePostmaster(300),
    isOver: pair => chosenIn(pair)?.epoch === 2 && pair.isProtected(),
  },
  {
    name: 'resign: the database dies while the backup is not heard',
    begin: pair => {
      const { network } = pair
      const primary = primaryOf(pair)
      network.cutAll(primary.peer.node, primary.node, 1)
      pair.world.after(3000, () => network.cutAll(primary.peer.node, primary.node, -1))
      primary.cluster.losePostmaster(10)
    },
    isOver: pair => pair.isProtected(),
  },
  {
    name: 'takeover',
    begin: pair => primaryOf(pair).powerCut(),
    isOver: pair => chosenIn(pair)?.epoch === 2 && primaryOf(pair).serves,
  },
  {
    name: 'rejoin',
    prepare: lose,
    begin: pair => backupOf(pair).boot(),
    isOver: pair => pair.isProtected(),
  },
  {
    name: 'rewind',
    prepare: pair => {
      const old = primaryOf(pair)
      // Its last commits never reach the other host, so they are never acknowledged, and its log goes past the fork.
      pair.network.cut(old.node, old.peer.node, 0, 1)
      pair.world.runUntil(pair.world.now + 250)
      lose(pair)
      pair.network.cut(old.node, old.peer.node, 0, -1)
    },
    begin: pair => backupOf(pair).boot(),
    isOver: pair => pair.isProtected(),
  },
  {
    name: 'force',
    begin: pair => pair.operator.force(backupOf(pair), { withWitness: true }),
    isOver: pair => chosenIn(pair)?.gen === 2 && pair.isProtected(),
  },
  {
    name: 'force without the witness',
    begin: pair => pair.operator.force(backupOf(pair), { withWitness: false }),
    isOver: pair => chosenIn(pair)?.gen === 2 && pair.isProtected(),
  },
  {
    name: 'leave: the primary',
    begin: pair => {
      const host = primaryOf(pair)
      host.agent.command({ command: 'leave' })
      pair.world.after(1500, () => host.powerCut())
      pair.world.after(2500, () => host.boot())
    },
    isOver: pair => chosenIn(pair)?.epoch === 2 && pair.isProtected(),
  },
  {
    name: 'leave: the backup',
    begin: pair => {
      const host = backupOf(pair)
      host.agent.command({ command: 'leave' })
      pair.world.after(1500, () => host.powerCut())
      pair.world.after(2500, () => host.boot())
    },
    isOver: pair => pair.isProtected() && pair.coverage.counts.grow === 2,
  },
  {
    name: 'depart: the primary',
    begin: pair => {
      const host = primaryOf(pair)
      host.agent.command({ command: 'depart' })
      pair.world.after(3000, () => host.powerCut())
      pair.world.after(4000, () => host.boot())
    },
    isOver: pair => chosenIn(pair)?.epoch === 2 && pair.isProtected(),
  },
  {
    name: 'depart: the backup',
    begin: pair => {
      const host = backupOf(pair)
      host.agent.command({ command: 'depart' })
      pair.world.after(3000, () => host.powerCut())
      pair.world.after(4000, () => host.boot())
    },
    isOver: pair => pair.isProtected() && pair.coverage.counts['member removed'] === 1,
  },
  {
    name: 'member change: the backup has a new disk',
    begin: pair => {
      const host = backupOf(pair)
      host.reimage()
      host.boot()
    },
    isOver: pair => pair.isProtected() && pair.coverage.counts['member removed'] === 1,
  },
  {
    name: 'member change: another witness',
    begin: pair => pair.operator.replaceWitness(),
    isOver: pair => pair.isProtected() && pair.coverage.counts['member removed'] === 1,
  },
]
