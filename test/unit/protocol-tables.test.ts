import assert from 'node:assert/strict'
import { test } from 'node:test'
import { accept } from '../../shared/protocol/acceptor.ts'
import { ballotOf, genAfter, genMax, genOf, proposerOf, roundMax, roundOf } from '../../shared/protocol/ballot.ts'
import { readiness } from '../../shared/protocol/changes.ts'
import { withSeen } from '../../shared/protocol/facts.ts'
import { readyToGrow, readyToHandOver } from '../../shared/protocol/primary-conditions.ts'
import type { Change, HostState, Round } from '../../shared/protocol/state.ts'
import type { AcceptorState, RegisterRequest, Value } from '../../shared/protocol/types.ts'
import { calmUntil, isProtected, setUp, startOf } from '../search/starts.ts'

/** Truth tables of the protocol's vocabulary: the compiler holds them complete, the cores of real situations fill them. */

const ballot = (n: number): number => ballotOf({ gen: 1, n, node: 'a' })
const value: Value = {
  gen: 1,
  version: 4,
  epoch: 1,
  primary: 'a',
  successor: true,
  voters: { a: 'a1', b: 'b1', w: 'w1' },
}

// ---------------------------------------------------------------- acceptor

type Store = 'empty' | 'calm' | 'promised' | 'learned'
const stores: Record<Store, AcceptorState> = {
  empty: { inc: 'b1', promised: 0, acc: null },
  calm: { inc: 'b1', promised: ballot(5), acc: { ballot: ballot(5), value } },
  promised: { inc: 'b1', promised: ballot(8), acc: { ballot: ballot(5), value } },
  // A committed value was heard of, above everything that was promised.
  learned: { inc: 'b1', promised: ballot(5), acc: { ballot: ballot(9), value } },
}
const prepare = (n: number, inc = 'b1'): RegisterRequest => ({ kind: 'prepare', req: 1, inc, ballot: ballot(n) })
const acceptIt = (n: number): RegisterRequest => ({ kind: 'accept', req: 1, inc: 'b1', ballot: ballot(n), value })
const cas = (n: number, expect: number): RegisterRequest => ({
  kind: 'cas',
  req: 1,
  inc: 'b1',
  ballot: ballot(n),
  expect: ballot(expect),
  value,
})
type Asked = keyof typeof requests
const requests = {
  read: { kind: 'read', req: 1, inc: 'b1' },
  'prepare 4': prepare(4),
  'prepare 5': prepare(5),
  'prepare 8': prepare(8),
  'prepare 10': prepare(10),
  'prepare of another inc': prepare(10, 'b2'),
  'accept 5': acceptIt(5),
  'accept 7': acceptIt(7),
  'accept 8': acceptIt(8),
  'accept 10': acceptIt(10),
  'cas 10 on 5': cas(10, 5),
  'cas 10 on 4': cas(10, 4),
  'cas 5 on 4': cas(5, 4),
} satisfies Record<string, RegisterRequest>

/** `+`: the store changes, so the answer waits for the disk. */
type Answer = '-' | 'state' | 'promise' | 'promise+' | 'accepted' | 'accepted+' | 'nack'
const answers: Record<Asked, Record<Store, Answer>> = {
  read: { empty: '-', calm: 'state', promised: 'state', learned: 'state' },
  'prepare 4': { empty: '-', calm: 'nack', promised: 'nack', learned: 'nack' },
  'prepare 5': { empty: '-', calm: 'promise', promised: 'nack', learned: 'promise' },
  'prepare 8': { empty: '-', calm: 'promise+', promised: 'promise', learned: 'promise+' },
  'prepare 10': { empty: '-', calm: 'promise+', promised: 'promise+', learned: 'promise+' },
  'prepare of another inc': { empty: '-', calm: '-', promised: '-', learned: '-' },
  'accept 5': { empty: 'accepted+', calm: 'accepted', promised: 'nack', learned: 'nack' },
  'accept 7': { empty: 'accepted+', calm: 'accepted+', promised: 'nack', learned: 'nack' },
  'accept 8': { empty: 'accepted+', calm: 'accepted+', promised: 'accepted+', learned: 'nack' },
  'accept 10': { empty: 'accepted+', calm: 'accepted+', promised: 'accepted+', learned: 'accepted+' },
  'cas 10 on 5': { empty: '-', calm: 'accepted+', promised: 'accepted+', learned: 'promise+' },
  'cas 10 on 4': { empty: '-', calm: 'promise+', promised: 'promise+', learned: 'promise+' },
  'cas 5 on 4': { empty: '-', calm: 'accepted', promised: 'accepted', learned: 'promise' },
}

for (const asked of Object.keys(answers) as Asked[]) {
  test(`an acceptor asked to ${asked} answers as the table says`, () => {
    for (const store of Object.keys(stores) as Store[]) {
      const result = accept(stores[store], requests[asked])
      const answer = result.reply === null ? '-' : `${result.reply.kind}${result.changed ? '+' : ''}`
      assert.equal(answer, answers[asked][store], store)
      assert.ok(result.state.promised >= stores[store].promised)
    }
  })
}

test('a vote for a value that does not admit this store leaves an empty store empty', () => {
  const request = { ...acceptIt(5), inc: 'b2' }
  assert.equal(accept({ ...stores.empty, inc: 'b2' }, request).reply, null)
})

test('ballots are ordered by gen, round and node, and stay exact', () => {
  const parts = [
    { gen: 1, n: roundMax, node: 'b' },
    { gen: 2, n: 1, node: 'a' },
    { gen: 2, n: 1, node: 'b' },
    { gen: 2, n: 2, node: 'a' },
    { gen: genMax, n: roundMax, node: 'w' },
  ] as const
  const packed = parts.map(ballotOf)
  assert.deepEqual(
    packed.toSorted((x, y) => x - y),
    packed,
  )
  assert.ok(packed.every(Number.isSafeInteger))
  assert.deepEqual(
    packed.map(b => ({ gen: genOf(b), n: roundOf(b), node: proposerOf(b) })),
    parts,
  )
  assert.throws(() => ballotOf({ gen: genMax + 1, n: 1, node: 'a' }))
})

// ---------------------------------------------------------------- table of changes

type Best = 'mine with successor' | 'mine without' | 'of the other with successor' | 'of the other without'
const bests: Record<Best, Value> = {
  'mine with successor': value,
  'mine without': { ...value, successor: false },
  'of the other with successor': { ...value, primary: 'b' },
  'of the other without': { ...value, primary: 'b', successor: false },
}
/** For a host that has just proposed it, with all that a serving primary needs, and a value that is not known committed. */
const allowed: Record<Exclude<Change, 'confirm'>, Record<Best, 'go' | 'refused'>> = {
  shrink: {
    'mine with successor': 'go',
    'mine without': 'refused',
    'of the other with successor': 'refused',
    'of the other without': 'refused',
  },
  grow: {
    'mine with successor': 'refused',
    'mine without': 'refused',
    'of the other with successor': 'refused',
    'of the other without': 'refused',
  },
  handover: {
    'mine with successor': 'refused',
    'mine without': 'refused',
    'of the other with successor': 'refused',
    'of the other without': 'refused',
  },
  takeover: {
    'mine with successor': 'refused',
    'mine without': 'refused',
    'of the other with successor': 'go',
    'of the other without': 'refused',
  },
  add: {
    'mine with successor': 'refused',
    'mine without': 'refused',
    'of the other with successor': 'refused',
    'of the other without': 'refused',
  },
  remove: {
    'mine with successor': 'refused',
    'mine without': 'refused',
    'of the other with successor': 'refused',
    'of the other without': 'refused',
  },
}

const roundTo = (change: Change): Round => ({
  ballot: ballot(90),
  change,
  ground: 'maintenance',
  phase: 'ready',
  startedAt: 1,
  sentAt: 1,
  req: 1,
  promises: {},
  best: null,
  value: null,
  accepts: {},
  member: change === 'add' || change === 'remove' ? { node: 'w', inc: 'w1' } : null,
  resigned: 0,
})

test('a change is proposed only from the values that the table names, and every round may read', () => {
  const world = calmUntil(setUp(), isProtected)
  const { core } = world.hosts.a
  for (const best of Object.keys(bests) as Best[]) {
    const found = { ballot: ballot(80), value: bests[best] }
    assert.deepEqual(readiness(core, roundTo('confirm'), found, world.now), { at: 'go', value: bests[best] })
    for (const change of Object.keys(allowed) as (keyof typeof allowed)[]) {
      const ready = readiness(core, roundTo(change), found, world.now)
      assert.equal(ready.at, allowed[change][best], `${change} from a value ${best}`)
    }
  }
})

// ---------------------------------------------------------------- Grow and Handover, one condition after the other

type Change1 = (s: HostState) => Partial<HostState>

/** Each condition of a Grow taken away alone, and what is said then. */
const growNeeds: readonly [string, Change1, RegExp][] = [
  ['a lease', s => ({ lease: { ...s.lease, leaseUntil: 1 } }), /not serving under a lease/],
  ['a backup that answers', s => ({ lease: { ...s.lease, promisedAt: 1, primaryAt: 1 } }), /silent/],
  ['the admitted store', s => ({ lease: { ...s.lease, ack: { ...s.lease.ack!, inc: 'b9' } } }), /not admitted/],
  ['a confirmed backup', s => ({ lease: { ...s.lease, ack: { ...s.lease.ack!, confirmed: false } } }), /not confirmed/],
  ['a backup that streams', s => ({ lease: { ...s.lease, ack: { ...s.lease.ack!, streaming: false } } }), /stream/],
  [
    'the same timeline',
    s => ({ lease: { ...s.lease, ack: { ...s.lease.ack!, flushed: { timeline: 9, lsn: 1 } } } }),
    /timeline 9/,
  ],
  ['the witness at the primary', s => ({ witness: { ...s.witness, answeredAt: 0 } }), /primary does not reach/],
  [
    'the witness at the backup',
    s => ({ lease: { ...s.lease, ack: { ...s.lease.ack!, witness: 'no' } } }),
    /backup does/,
  ],
  ['no pin', s => ({ witness: { ...s.witness, pinned: true } }), /witness was away/],
  ['no maintenance', s => ({ duty: { ...s.duty, maintenanceUntil: 1e9 } }), /maintenance/],
  ['the hold-down over', s => ({ duty: { ...s.duty, regrowAt: 1e9 } }), /lost a moment ago/],
  ['sync in force', s => ({ database: { ...s.database, barrier: null } }), /not proven/],
  ['a flushed barrier', s => ({ database: { ...s.database, passedBy: '' } }), /not proven/],
  ['a barrier of this store', s => ({ database: { ...s.database, passedBy: 'b0' } }), /not proven/],
  ['a grant that ends with the lease', s => ({ gate: { ...s.gate, grantUntil: 1e9 } }), /longer than the lease/],
]

for (const [condition, without, says] of growNeeds) {
  test(`a grow needs ${condition}`, () => {
    const world = startOf('before-grow').world()
    const { core } = world.hosts.a
    assert.equal(readyToGrow(core, world.now), null)
    assert.match(readyToGrow({ ...core, ...without(core) }, world.now) ?? 'ready', says)
  })
}

const handoverNeeds: readonly [string, Change1][] = [
  ['a database that is dead', s => ({ vacate: { ...s.vacate!, end: null } })],
  ['a gate that is shut', s => ({ gate: { ...s.gate, set: 'open' } })],
  ['an answer', s => ({ lease: { ...s.lease, ack: null } })],
  ['a promise', s => ({ lease: { ...s.lease, ack: { ...s.lease.ack!, promise: false } } })],
  ['a confirmed backup', s => ({ lease: { ...s.lease, ack: { ...s.lease.ack!, confirmed: false } } })],
  ['the admitted store', s => ({ lease: { ...s.lease, ack: { ...s.lease.ack!, inc: 'b9' } } })],
  ['an answer to a heartbeat sent after the kill', s => ({ vacate: { ...s.vacate!, killedSeq: s.lease.ack!.seq } })],
]

test('a hand-over needs each of its conditions, and pinned the end of the log as well', () => {
  const world = startOf('switchover').world()
  const last = world.hosts.a.core
  // The backup has flushed the end, and answers the heartbeat that was sent after the kill.
  const ack = { ...last.lease.ack!, seq: last.vacate!.killedSeq + 1 }
  const core = { ...last, lease: { ...last.lease, ack } }
  assert.equal(readyToHandOver(core, core.durable.known!.value, world.now), true)
  const { value: known } = core.durable.known!
  for (const [condition, without] of handoverNeeds)
    assert.equal(readyToHandOver({ ...core, ...without(core) }, known, world.now), false, condition)
  const behind = { ...ack, flushed: { timeline: core.vacate!.end!.timeline, lsn: 0 } }
  const late = { ...core, lease: { ...core.lease, ack: behind } }
  assert.equal(readyToHandOver(late, { ...known, successor: false }, world.now + 10_000), false)
  assert.equal(readyToHandOver(late, known, world.now + 10_000), true)
})

test('two hosts that are forced without having heard of each other never share a gen', () => {
  for (const gen of [1, 2, 3, 4]) {
    assert.ok(genAfter(gen, 'a') > gen && genAfter(gen, 'b') > gen)
    assert.deepEqual([genAfter(gen, 'a') % 2, genAfter(gen, 'b') % 2], [1, 0])
  }
})

test('of the witnesses that were replaced only the newest few are remembered, and never fewer than those in use', () => {
  let { core } = calmUntil(setUp(), isProtected).hosts.a
  const wanted = core.witness.wanted ?? ''
  for (let i = 1; i <= 50; i++) {
    const wSeen = withSeen(core, `old${i}`, ballotOf({ gen: 1, n: 100 + i, node: 'a' }))
    core = { ...core, durable: { ...core.durable, wSeen } }
  }
  const kept = Object.keys(core.durable.wSeen)
  assert.ok(kept.length <= 12 && kept.includes(wanted), kept.join(' '))
  assert.ok(kept.includes('old50') && kept.includes('old45') && !kept.includes('old1'))
})
