import assert from 'node:assert/strict'
import { test } from 'node:test'
import { growObstacle } from '../../shared/protocol/primary-conditions.ts'
import { timingOf, voteLimitMs } from '../../shared/protocol/timing.ts'
import { Scene } from './scene.ts'

test('an answer to a heartbeat from before the agent was restarted does not extend the lease', () => {
  const scene = Scene.protected()
  const restart = () => {
    scene.a.agent.crash(20)
    scene.run(60)
  }
  restart()
  scene.until('some heartbeats are answered', () => scene.a.state.lease.seq >= 5)
  const ack = scene.sent('b', 'ack')
  assert.equal(ack.promise, true)
  scene.lose((_from, _to, message) => message.kind === 'ack' || message.kind === 'heartbeat')
  restart()
  scene.until('as many heartbeats are sent', () => scene.a.state.lease.seq >= ack.seq)
  scene.arrives(scene.a, 'b', ack)
  assert.equal(scene.a.state.lease.leaseUntil, 0)
  scene.heal()
})

test('the promise of a store that is not admitted keeps nobody serving', () => {
  const scene = Scene.protected()
  // No round of the primary comes to an end, so the store that was lost stays the admitted one.
  scene.lose((from, _to, { kind }) => from === 'a' && (kind === 'prepare' || kind === 'accept' || kind === 'cas'))
  scene.b.reimage()
  scene.b.boot()
  scene.until('the new store follows', () => scene.b.cluster.process === 'standby', 60_000)
  for (let i = 0; i < 50; i++) {
    scene.run(100)
    assert.equal(scene.a.gate.isOpen, false)
  }
  scene.heal()
})

test('a primary that hears nobody falls silent, and the backup takes over', () => {
  const scene = Scene.protected()
  const deaf = [scene.cut('b', 'a'), scene.cut('w', 'a')]
  const { leaseMs } = scene.pair.timing
  scene.until('the backup serves', () => scene.b.serves, 7 * leaseMs)
  for (const end of deaf) end()
  scene.heal()
})

test('a backup whose disk has lost what it had acknowledged does not stand', () => {
  const scene = Scene.protected()
  scene.run(1500)
  scene.b.powerCut()
  const { cluster, file } = scene.b
  const { tl } = cluster.log
  cluster.log = { tl, end: Math.max(tl.fork, file.content.maxFlushed.lsn - 200) }
  scene.a.powerCut()
  scene.b.boot()
  scene.run(15_000)
  assert.equal(scene.pair.named, 'a')
  scene.heal()
})

test('a round that nobody answers ends in time, and the next one has a ballot of its own', () => {
  const scene = Scene.protected()
  const { roundLimitMs, silenceMs } = scene.a.agent.timing
  scene.lose(() => true)
  scene.run(2 * silenceMs)
  const first = scene.a.state.round
  assert.ok(first !== null && first.change === 'shrink')
  scene.until('the round is over', () => scene.a.state.round?.ballot !== first.ballot, roundLimitMs)
  scene.until('the next one is begun', () => scene.a.state.durable.lastOwn > first.ballot, roundLimitMs)
  scene.heal()
})

test('a backup with leases of another length promises nothing; the primary goes on alone and says why', () => {
  const scene = Scene.protected()
  const restart = (profile: 'fast' | 'default') => {
    scene.b.agent.profile = profile
    scene.b.agent.crash(20)
  }
  restart('fast')
  scene.until('the shrink is chosen', () => !scene.value.successor, 5000)
  scene.run(10_000)
  assert.equal(scene.a.serves, true)
  assert.equal(scene.value.successor, false)
  assert.match(growObstacle(scene.a.state, scene.a.clock.now) ?? '', /leases of 300 ms, the primary's of 1000 ms/)
  restart('default')
  scene.until('the pair is protected again', () => scene.value.successor, 30_000)
  scene.heal()
})

test('a backup that is started again with shorter leases waits as long as it may have promised before', () => {
  const scene = Scene.protected()
  scene.a.powerCut()
  scene.b.agent.profile = 'fast'
  scene.b.agent.crash(20)
  scene.until('the backup serves', () => scene.b.serves, 5000)
  scene.until('the longer lease is over', () => scene.b.file.content.leaseMs === 300, 5000)
  scene.b.agent.profile = 'default'
  scene.b.agent.crash(20)
  scene.heal()
})

test('a backup that stands still after it was started with shorter leases waits as long as it may have promised before', () => {
  const scene = Scene.protected()
  scene.b.agent.profile = 'fast'
  const ends = [scene.cutBoth('a', 'b'), scene.cutBoth('a', 'w')]
  scene.b.agent.crash(20)
  scene.run(100)
  scene.b.pause('suspend')
  scene.run(50)
  scene.b.goOn()
  scene.until('the backup serves', () => scene.b.serves, 5000)
  for (const end of ends) end()
  scene.b.agent.profile = 'default'
  scene.b.agent.crash(20)
  scene.heal()
})

test('while the witness is away the pair is pinned, and then the loss of the backup stops nothing', () => {
  const scene = Scene.protected()
  scene.pair.witness.down++
  scene.run(60_000)
  assert.equal(scene.value.successor, false)
  scene.b.powerCut()
  scene.run(1000)
  for (let i = 0; i < 30; i++) {
    scene.run(100)
    assert.equal(scene.a.serves, true)
  }
  scene.pair.witness.down--
  scene.heal()
})

test('a backup that reaches its own network, but neither the primary nor the witness, stays a backup', () => {
  const scene = Scene.protected()
  const ends = [scene.cutBoth('a', 'b'), scene.cutBoth('b', 'w')]
  scene.run(10_000)
  assert.equal(scene.pair.named, 'a')
  assert.equal(scene.b.state.uplink, true)
  assert.equal(scene.a.serves, true)
  for (const end of ends) end()
  scene.heal()
})

test('a grow of which nobody knows whether it was chosen binds the primary to its lease', () => {
  const scene = Scene.protected()
  scene.maintain(1500)
  const ends: (() => void)[] = []
  // Its accept reaches the witness and nothing comes back any more, from nobody.
  scene.lose((from, to, message) => {
    const grows = from === 'a' && message.kind === 'accept' && message.value.successor
    if (grows && ends.length === 0) ends.push(scene.cut('w', 'a'), scene.cutBoth('a', 'b'))
    return grows && to === 'b'
  })
  scene.until('the accept has left', () => ends.length > 0, 30_000)
  scene.lose(() => false)
  scene.until('the backup serves', () => scene.b.serves)
  assert.equal(scene.a.gate.isOpen, false)
  for (const end of ends) end()
  scene.heal()
})

/** Whether the primary's gate was ever shut while it made a lost backup ineligible, with votes of this length. */
function isFrozenByVotes(profile: 'fast' | 'default' | 'conservative', voteMs: number): boolean {
  const { heartbeatMs } = timingOf(profile)
  const change = {
    profile,
    tickMs: heartbeatMs / 6,
    observeMs: heartbeatMs / 2,
    witnessMs: voteMs / 2,
    witnessJitterMs: 0,
  }
  const scene = Scene.protected({ change })
  scene.b.powerCut()
  let isFrozen = false
  scene.until('the shrink is known', () => {
    isFrozen ||= !scene.a.gate.isOpen
    return scene.a.state.durable.known?.value.successor === false
  })
  return isFrozen
}

for (const profile of ['fast', 'default', 'conservative'] as const) {
  test(`with the slowest witness that the profile ${profile} admits, the loss of the backup shuts nothing; a much slower one would`, () => {
    const limitMs = voteLimitMs(timingOf(profile))
    assert.equal(isFrozenByVotes(profile, limitMs), false)
    assert.equal(isFrozenByVotes(profile, limitMs * 1.45), true)
  })
}

test('a primary that fell silent, the witness away, goes on as soon as its backup has booted', () => {
  const scene = Scene.protected()
  scene.cutBoth('a', 'w')
  scene.cutBoth('b', 'w')
  scene.b.powerCut()
  scene.until('the primary has fallen silent', () => scene.a.state.lease.abdicated)
  scene.b.boot()
  scene.until('the backup has started', () => scene.b.agent.upSince > 0)
  scene.until('the primary serves again', () => scene.a.serves, 2000)
  assert.deepEqual([scene.value.primary, scene.value.epoch], ['a', 1])
  scene.heal()
})

test('a primary that fell silent, its backup off, goes on as soon as the witness is back', () => {
  for (const seed of [1, 2, 3, 4, 5]) {
    const scene = Scene.protected({ seed })
    scene.run(700 * seed)
    scene.pair.witness.down++
    scene.b.powerCut()
    scene.until('the primary has fallen silent', () => scene.a.state.lease.abdicated)
    scene.run(500)
    scene.pair.witness.down--
    scene.until('the primary serves again', () => scene.a.serves, 1500)
    assert.deepEqual([scene.value.primary, scene.value.epoch], ['a', 1])
    scene.heal()
  }
})

test('a segment that is lost on a slow link, and sent again, does not cost the backup its eligibility', () => {
  const scene = Scene.protected({ change: { linkMs: 200, linkJitterMs: 50, loss: 0.05, paths: 2 } })
  const shrinks = scene.count('shrink')
  for (let i = 0; i < 5; i++) {
    // TCP waits for the double of the round trip and more before it sends again.
    scene.a.cluster.stream.holdUntil = scene.pair.world.now + 1000
    scene.run(5000)
  }
  assert.equal(scene.count('shrink') - shrinks, 0)
  assert.deepEqual([scene.value.primary, scene.value.epoch], ['a', 1])
  scene.heal()
})

test('a backup that makes no progress although the link is quick loses its eligibility at once', () => {
  const scene = Scene.protected()
  scene.a.cluster.stream.holdUntil = scene.pair.world.now + 3000
  scene.until('the shrink is chosen', () => !scene.value.successor, 1000)
  scene.heal()
})

test('a promise that names another epoch or gen extends no lease', () => {
  const scene = Scene.protected()
  scene.lose((from, _to, { kind }) => from === 'b' && kind === 'ack')
  scene.run(1500)
  const ack = { ...scene.sent('b', 'ack'), seq: scene.a.state.lease.seq }
  const { leaseUntil } = scene.a.state.lease
  scene.arrives(scene.a, 'b', { ...ack, epoch: ack.epoch - 1 })
  scene.arrives(scene.a, 'b', { ...ack, gen: ack.gen + 1 })
  assert.equal(scene.a.state.lease.leaseUntil, leaseUntil)
  scene.heal()
})

test('whoever comes into office begins without a lease, also when it had one before', () => {
  const scene = Scene.protected()
  scene.pair.operator.switchover(scene.a)
  scene.until('the other host is primary', () => scene.value.epoch === 2)
  scene.until('the pair is protected', () => scene.pair.isProtected())
  scene.run(1500)
  scene.pair.operator.switchover(scene.b)
  scene.until('it is under way', () => scene.b.state.vacate !== null)
  scene.until('the hand-over is proposed', () => scene.b.state.round?.change === 'handover' || scene.value.epoch === 3)
  scene.lose((from, _to, { kind }) => from === 'b' && kind === 'ack')
  scene.until('it is in office again', () => scene.a.state.durable.known?.value.epoch === 3)
  assert.equal(scene.a.state.lease.leaseUntil, 0)
  scene.heal()
})
