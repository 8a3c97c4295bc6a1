import assert from 'node:assert/strict'
import { test } from 'node:test'
import { witnessReach } from '../../shared/protocol/facts.ts'
import { statusOf } from '../../shared/protocol/status.ts'
import { Scene } from './scene.ts'

test('a primary whose database dies does not hand over to a backup that has just got new disks', () => {
  const scene = Scene.protected()
  scene.b.reimage()
  scene.a.cluster.losePostmaster(10)
  scene.run(12_000)
  assert.equal(scene.value.primary, 'a')
  assert.equal(scene.a.serves, true)
  scene.heal()
})

test('a value that is heard of after a boot, however late, makes nobody serve', () => {
  const scene = Scene.protected()
  scene.maintain(600_000)
  // The backup boots and reads the register anew: a later ballot of the same value, and it tells the primary.
  scene.b.powerCut()
  scene.run(300)
  scene.b.boot()
  scene.lose((from, _to, message) => from === 'b' && message.kind === 'learn')
  scene.until('the backup has confirmed', () => scene.b.state.durable.confirmedBoot === scene.b.bootId())
  scene.run(20)
  const learn = scene.sent('b', 'learn')
  assert.ok(learn.ballot > (scene.a.state.durable.known?.ballot ?? 0))
  scene.lose(() => false)
  scene.pair.operator.force(scene.b, { withWitness: true })
  const apart = scene.cutBoth('a', 'b')
  const alone = scene.cutBoth('a', 'w')
  scene.until('the operator lets the old primary on again', () => scene.a.agent.upSince > 0)
  scene.arrives(scene.a, 'b', learn)
  for (let i = 0; i < 20; i++) {
    scene.run(100)
    assert.equal(scene.a.gate.isOpen, false)
  }
  apart()
  alone()
  scene.heal()
})

test('the old primary stays off until the witness holds the forced takeover', () => {
  const scene = Scene.protected()
  const apart = scene.cutBoth('a', 'b')
  scene.pair.operator.force(scene.b, { withWitness: true })
  const unheard = scene.cutBoth('b', 'w')
  scene.until('the takeover is decreed', () => scene.value.gen === 2)
  scene.run(10_000)
  assert.equal(scene.a.power, 'off')
  unheard()
  scene.until('the old primary boots', () => scene.a.power === 'on')
  apart()
  scene.heal()
})

test('forced without the witness, the old primary stays off as long as that witness could help it to a majority', () => {
  const scene = Scene.protected()
  const apart = scene.cutBoth('a', 'b')
  scene.pair.operator.force(scene.b, { withWitness: false })
  const unheard = scene.cutBoth('b', 'w')
  scene.until('the takeover is decreed', () => scene.value.gen === 2)
  scene.run(10_000)
  assert.equal(scene.a.power, 'off')
  // The witness is added to the new gen as soon as it is reached.
  unheard()
  scene.until('the old primary boots', () => scene.a.power === 'on')
  assert.notEqual(scene.value.voters.w, undefined)
  apart()
  scene.heal()
})

test('a takeover that is forced on a host that was removed is sealed by no witness: the other host may be alone by now', () => {
  const scene = Scene.protected()
  scene.tell(scene.b, { command: 'depart' })
  scene.until('it is removed', () => scene.b.state.durable.known?.value.voters.b === undefined)
  // What becomes of the pair without it, it does not hear.
  const apart = scene.cutBoth('a', 'b')
  scene.pair.operator.giveWitnessUp()
  scene.until('the other host is alone', () => Object.keys(scene.value.voters).length === 1)
  scene.a.powerCut()
  const { epoch } = scene.b.state.durable.known!.value
  scene.tell(scene.b, { command: 'force', gen: 1, epoch, withWitness: true })
  scene.until('the witness holds the takeover', () => scene.pair.witness.state.acc?.value.gen === 2)
  scene.run(1000)
  assert.equal(statusOf(scene.b.state, scene.b.clock.now).sealed, false)
  // With a new store it can do no harm.
  scene.a.reimage()
  apart()
  scene.pair.operator.wantWitnessAgain()
  scene.a.boot()
  scene.until('the pair is protected', () => scene.pair.isProtected(), 60_000)
  assert.equal(statusOf(scene.b.state, scene.b.clock.now).sealed, true)
  scene.heal()
})

test('a host that is lost before it has sealed a forced takeover is removed, and its new store taken in', () => {
  const scene = Scene.protected()
  scene.b.powerCut()
  scene.pair.operator.replaceWitness()
  scene.a.agent.witnessIs(scene.pair.wantedWitness)
  scene.tell(scene.a, { command: 'force', gen: 1, epoch: 1, withWitness: false })
  scene.b.reimage()
  scene.lose((from, _to, message) => from === 'b' && message.kind === 'accepted')
  scene.b.boot()
  scene.until('its new store is a member', () => scene.value.voters.b === scene.b.file.content.inc, 60_000)
  assert.equal(statusOf(scene.a.state, scene.a.clock.now).sealed, false)
  scene.b.reimage()
  scene.lose(() => false)
  scene.b.boot()
  scene.until('the pair is protected', () => scene.pair.isProtected(), 60_000)
  assert.equal(statusOf(scene.a.state, scene.a.clock.now).sealed, true)
  scene.heal()
})

test('a resign that arrives after the primary has gone on makes nobody stand', () => {
  const scene = Scene.protected()
  const unheard = scene.cut('b', 'a')
  const unsaid = scene.cut('a', 'b')
  scene.a.cluster.losePostmaster(10)
  scene.until('the primary resigned', () => scene.count('resign') === 1)
  scene.run(200)
  const resign = scene.sent('a', 'resign')
  // The backup hears the primary again only after it has gone on by itself.
  scene.lose((from, _to, message) => from === 'b' && (message.kind === 'cas' || message.kind === 'prepare'))
  scene.until('the primary has taken the eligibility back and serves', () => scene.a.serves, 30_000)
  scene.lose(() => false)
  unheard()
  unsaid()
  scene.until('the pair is protected again', () => scene.pair.isProtected(), 60_000)
  scene.arrives(scene.b, 'a', resign)
  scene.run(1000)
  assert.equal(scene.value.primary, 'a')
  scene.heal()
})

test('a witness that was set back to before a shrink does not help the backup to a takeover', () => {
  const scene = Scene.protected()
  const before = scene.pair.witness.state.acc?.ballot
  // The backup hears heartbeats, so it does not stand; it is not heard, and is told nothing of the shrink.
  scene.lose(
    (from, to, message) => from === 'a' && to === 'b' && (message.kind === 'accept' || message.kind === 'learn'),
  )
  const unheard = scene.cut('b', 'a')
  scene.until('the shrink is chosen', () => !scene.value.successor)
  const { ballot } = scene.pair.checks.register.latest ?? { ballot: 0 }
  const seen = () => Math.max(...Object.values(scene.b.file.safe.wSeen)) >= ballot
  scene.until('the backup has seen it at the witness', seen, 30_000)
  assert.ok(scene.pair.witness.rollBack(state => state.acc?.ballot === before))
  const apart = scene.cut('a', 'b')
  scene.run(10_000)
  assert.equal(scene.value.primary, 'a')
  unheard()
  apart()
  scene.heal()
})

test('a backup that has not heard of a change goes on keeping the lease', () => {
  const scene = Scene.protected()
  scene.maintain(2000)
  const opened = scene.count('freeze')
  scene.lose(
    (from, to, message) => from === 'a' && to === 'b' && (message.kind === 'accept' || message.kind === 'learn'),
  )
  scene.until('the backup is the successor again', () => scene.value.successor, 30_000)
  for (let i = 0; i < 300; i++) {
    scene.run(10)
    assert.equal(scene.value.successor, true)
    assert.equal(scene.a.gate.isOpen, true)
  }
  assert.equal(scene.count('freeze'), opened)
  scene.heal()
})

test('an empty store does not stand in for the vote of the one that was lost', () => {
  const scene = Scene.protected()
  const apart = scene.cutBoth('a', 'b')
  const unheard = scene.cutBoth('b', 'w')
  scene.until('the shrink is chosen', () => !scene.value.successor)
  // From then on the backup asks in two trips.
  const away = () => witnessReach(scene.b.state, scene.b.clock.now) === 'no'
  scene.until('the backup sees that the witness is away', away, 30_000)
  scene.run(3000)
  scene.a.reimage()
  apart()
  scene.a.boot()
  scene.until('the empty host answers', () => scene.a.agent.upSince > 0)
  scene.run(100)
  // What the witness holds is known to nobody else any more.
  unheard()
  scene.run(5000)
  assert.equal(scene.value.primary, 'a')
  assert.equal(scene.b.serves, false)
})

test('whoever hears of a forced takeover has its gate closed and its database killed before it knows the value', () => {
  const scene = Scene.protected()
  const ends = [scene.cutBoth('a', 'b'), scene.cutBoth('a', 'w')]
  scene.until('the lease is over', () => !scene.a.gate.isOpen)
  scene.tell(scene.b, { command: 'force', gen: 1, epoch: scene.value.epoch, withWitness: true })
  scene.until('the other host serves', () => scene.b.serves)
  scene.lose((from, _to, message) => from === 'b' && message.kind === 'learn')
  assert.equal(scene.a.cluster.process, 'primary')
  for (const end of ends) end()
  scene.run(500)
  assert.equal(scene.a.gate.isClosed, true)
  assert.equal(scene.a.cluster.process, 'none')
  scene.heal()
})

test('a primary that is taken for off, and is not, stops for good once the witness shows it that the other host was forced', () => {
  // The operator's word is wrong, so both serve for a while.
  const scene = Scene.protected({ change: { runClass: 'wild' } })
  scene.pair.client.stop()
  const together = scene.cutBoth('a', 'b')
  scene.until('the primary goes on alone', () => !scene.value.successor && scene.a.state.openGrow === 0)
  const { epoch } = scene.value
  scene.tell(scene.b, { command: 'force', gen: 1, epoch, withWitness: true })
  scene.until('the other host serves', () => scene.b.serves)
  scene.until(
    'the old primary has shut its gate',
    () => scene.a.gate.isClosed,
    scene.a.agent.timing.witnessProbeMs + 100,
  )
  for (let i = 0; i < 200; i++) {
    scene.run(100)
    assert.deepEqual([scene.a.gate.isOpen, scene.a.serves], [false, false])
  }
  assert.equal(scene.a.cluster.process, 'none')
  together()
  scene.until('it follows the other one', () => scene.pair.isProtected(), 60_000)
})

test('a host that hears of a forced takeover with each heartbeat, and is heard by nobody, shuts its gate once', () => {
  const scene = Scene.protected()
  scene.lose((from, to, message) => from === 'a' || (to === 'a' && message.kind !== 'heartbeat'))
  scene.pair.operator.force(scene.b, { withWitness: true })
  scene.until('the operator lets the old primary on again', () => scene.a.agent.upSince > 0)
  scene.run(1000)
  assert.equal(scene.a.gate.isOpen, false)
  const changes = scene.a.state.gate.seq
  scene.run(2000)
  assert.equal(scene.a.state.gate.seq, changes)
  scene.heal()
})

/** The primary misses the answers of its backup, has the vote to go on alone, and hears nobody as the value is accepted. */
function deafInTheMiddleOfAShrink(
  scene: Scene,
  accepted: 'by the witness' | 'here alone',
  backup: 'may stand' | 'may not',
) {
  const ends = [scene.cut('b', 'a')]
  let deaf = true
  scene.lose((from, to, { kind }) => {
    if (from === 'b') return backup === 'may not' && (kind === 'cas' || kind === 'prepare')
    if (kind !== 'accept' || !deaf) return false
    if (ends.length === 1) ends.push(scene.cut('w', 'a'))
    return to === 'b' || accepted === 'here alone'
  })
  scene.until('the primary hears nobody', () => ends.length === 2, 2000)
  return () => {
    deaf = false
    for (const end of ends) end()
  }
}

test('a primary that goes deaf as its shrink is accepted resigns from it, and the backup takes over', () => {
  for (const accepted of ['by the witness', 'here alone'] as const) {
    const scene = Scene.protected()
    const { version } = scene.value
    const hearAgain = deafInTheMiddleOfAShrink(scene, accepted, 'may stand')
    scene.until('the backup serves', () => scene.b.serves, 7 * scene.pair.timing.leaseMs)
    if (accepted === 'by the witness') assert.equal(scene.a.file.safe.resigned, version + 1)
    hearAgain()
    scene.heal()
  }
})

test('a primary that resigned from its shrink in doubt, and could not say so, serves only by a later version', () => {
  for (const accepted of ['by the witness', 'here alone'] as const) {
    const scene = Scene.protected()
    const { version } = scene.value
    const hearAgain = deafInTheMiddleOfAShrink(scene, accepted, 'may not')
    const unsaid = scene.cut('a', 'b')
    scene.until('the primary resigned', () => scene.a.file.safe.resigned === version + 1)
    assert.equal(scene.a.cluster.process, 'none')
    scene.run(200)
    const resign = scene.sent('a', 'resign')
    hearAgain()
    scene.until('the primary serves again', () => scene.a.serves, 30_000)
    assert.equal(scene.value.primary, 'a')
    assert.ok(scene.value.version > version + 1, `serves by version ${scene.value.version}`)
    // Heard too late, the resign makes nobody stand.
    scene.lose(() => false)
    scene.arrives(scene.b, 'a', resign)
    scene.run(1000)
    assert.equal(scene.value.primary, 'a')
    unsaid()
    scene.heal()
  }
})
