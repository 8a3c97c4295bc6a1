import assert from 'node:assert/strict'
import { test } from 'node:test'
import { step } from '../../shared/protocol/step.ts'
import { Scene } from './scene.ts'

/** Somebody forces the backup; the old primary, wherever it is, is alone from now on. */
function forcedElsewhere(scene: Scene): () => void {
  const ends = [scene.cutBoth('a', 'b'), scene.cutBoth('a', 'w')]
  scene.tell(scene.b, { command: 'force', gen: 1, epoch: scene.value.epoch, withWitness: true })
  scene.until('the other host serves', () => scene.b.serves)
  return () => {
    for (const end of ends) end()
  }
}

/** As in the product: shutting the gate overtakes what waits behind a durable write. */
const overtaking = { change: { strictQueue: false } }

test('answers that are slow on their way leave less of the lease', () => {
  const scene = Scene.protected()
  scene.pair.network.worsen('b', 'a', { loss: 0, delayMs: 200 })
  scene.run(3000)
  scene.heal()
})

test('a pinned primary that was suspended serves only after a round of its own', () => {
  const scene = Scene.protected(overtaking)
  scene.maintain(600_000)
  scene.a.pause('suspend')
  scene.run(1000)
  const together = forcedElsewhere(scene)
  scene.a.goOn()
  for (let i = 0; i < 50; i++) {
    scene.run(20)
    assert.equal(scene.a.gate.isOpen, false)
  }
  together()
  scene.heal()
})

test('an answer from before a suspend confirms nothing after it', () => {
  const scene = Scene.protected(overtaking)
  scene.maintain(600_000)
  scene.a.agent.crash(20)
  scene.run(100)
  // The boot's own round: asleep just when its accept has left, so that the answers wait in the socket.
  scene.a.powerCut()
  scene.run(300)
  let asleep = false
  scene.lose((from, _to, message) => {
    if (from === 'a' && message.kind === 'accept' && !asleep) {
      asleep = true
      scene.pair.world.after(0.01, () => scene.a.agent.pause())
      scene.pair.world.after(50, () => scene.a.pause('suspend'))
    }
    return false
  })
  scene.a.boot()
  scene.until('it sleeps', () => scene.a.power === 'paused')
  scene.run(1000)
  const together = forcedElsewhere(scene)
  scene.a.goOn()
  for (let i = 0; i < 50; i++) {
    scene.run(20)
    assert.equal(scene.a.gate.isOpen, false)
  }
  together()
  scene.heal()
})

test('what the kernel said to an earlier request lowers no bound on the gate', () => {
  const scene = Scene.protected(overtaking)
  scene.maintain(600_000)
  scene.run(500)
  const { state, clock } = scene.a
  const late = { state: 'open', expiresUntil: clock.now + 1 } as const
  const stamp = { now: clock.now, random: 0.5 }
  const after = step(state, { ...stamp, event: 'gate', seq: state.gate.seq - 1, report: late }).state
  assert.equal(after.gate.grantUntil, state.gate.grantUntil)
  const answered = step(state, { ...stamp, event: 'gate', seq: state.gate.seq, report: late }).state
  assert.notEqual(answered.gate.grantUntil, state.gate.grantUntil)
})

test('a backup that was suspended waits for a lease before it stands', () => {
  const scene = Scene.protected()
  scene.b.pause('suspend')
  scene.a.powerCut()
  scene.run(3000)
  scene.b.goOn()
  const from = scene.pair.world.now
  scene.until('something is chosen again', () => scene.value.primary === 'b' || scene.pair.world.now - from > 5000)
  assert.ok(scene.pair.world.now - from >= scene.pair.timing.leaseMs * 0.98)
  scene.heal()
})

test('a grant that the kernel refuses or applies late never outlasts the lease of a grow', () => {
  for (const seed of [1, 2, 3, 4, 5, 6]) {
    const scene = Scene.protected({ seed, change: { gateLagMs: 60, fsyncMs: 0.2, fsyncJitterMs: 0.2 } })
    for (let i = 0; i < 5; i++) {
      scene.maintain(300)
      scene.until('the backup is the successor again', () => scene.value.successor, 30_000)
      scene.run(100)
    }
    scene.heal()
  }
})
