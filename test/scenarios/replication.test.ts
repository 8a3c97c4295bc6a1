import assert from 'node:assert/strict'
import { test } from 'node:test'
import { statusOf } from '../../shared/protocol/status.ts'
import { Scene } from './scene.ts'

const twoVolumes = { change: { oneVolume: false } }

/** The backup is gone for a while, the primary commits alone, and the backup comes back. */
function aloneFor(scene: Scene, ms: number): void {
  scene.b.powerCut()
  scene.until('the primary commits alone', () => scene.a.cluster.names === 'empty')
  scene.run(ms)
  scene.b.boot()
}

/** The Grow follows within milliseconds of the proof, so this looks as often as that. */
function grownOnlyInForce(scene: Scene): void {
  while (!scene.a.cluster.inForce) {
    assert.equal(scene.value.successor, false)
    scene.run(1)
  }
  scene.until('the backup is the successor', () => scene.value.successor)
  scene.heal()
}

test('a grow waits until synchronous replication is in force, not until it is configured', () => {
  const scene = Scene.protected()
  aloneFor(scene, 1000)
  const { cluster } = scene.a
  scene.until('the names are set again', () => cluster.names === 'set', 30_000)
  assert.equal(cluster.inForce, false)
  cluster.checkpointerBusyUntil = scene.pair.world.now + 6000
  grownOnlyInForce(scene)
})

test('the backup is not told to be ahead, though its word may be newer than the own look', () => {
  const scene = Scene.protected()
  for (let i = 0; i < 2_000; i++) {
    scene.run(1)
    assert.ok((statusOf(scene.a.state, scene.a.clock.now).database.lagBytes ?? 0) >= 0)
  }
})

test('a new agent does not take over that synchronous replication was proven', () => {
  const scene = Scene.protected()
  aloneFor(scene, 1000)
  const { cluster } = scene.a
  scene.until('the names are set again', () => cluster.names === 'set', 30_000)
  cluster.checkpointerBusyUntil = scene.pair.world.now + 6000
  scene.a.agent.crash(20)
  grownOnlyInForce(scene)
})

test('a backup that has not flushed what was committed without it is not made the successor', () => {
  const scene = Scene.protected(twoVolumes)
  aloneFor(scene, 3000)
  scene.until('it follows', () => scene.a.cluster.view().sender !== null, 30_000)
  scene.b.dataDisk.slowMs = 4000
  const { acknowledged } = scene.pair
  for (let i = 0; i < 600; i++) {
    scene.run(20)
    if (scene.value.successor) assert.equal(acknowledged.lackingIn(scene.b.cluster.log), null)
  }
  scene.b.dataDisk.slowMs = 0
  scene.heal()
})

test('after a restart nobody reads commits that the successor has not got', () => {
  const scene = Scene.protected({ change: { paths: 2, recoveryMs: 44 } })
  // Replication is cut, the heartbeats are not: commits wait.
  scene.pair.network.cut('a', 'b', 0, 1)
  scene.pair.network.cut('b', 'a', 0, 1)
  scene.until('commits wait', () => scene.a.cluster.waiting.length > 1, 300)
  const { log } = scene.a.cluster
  const lacking = log.end
  scene.a.agent.crash(20)
  scene.a.cluster.losePostmaster(5)
  scene.until('the database runs again', () => scene.a.cluster.process === 'primary', 2000)
  // What was never acknowledged is visible in it from now on.
  assert.ok(scene.a.cluster.visible >= lacking)
  while (scene.value.successor) {
    scene.run(2)
    if (scene.value.successor) assert.equal(scene.a.gate.isOpen && scene.b.cluster.log.end < lacking, false)
  }
  scene.heal()
})

test('a pinned pair with a healthy backup loses nothing with its primary', () => {
  const scene = Scene.protected({ change: { oneVolume: false, clientEveryMs: 40 } })
  scene.pair.witness.down++
  scene.until('the pair is pinned', () => scene.count('pin') === 1, 60_000)
  scene.run(5000)
  scene.b.dataDisk.slowMs = 100
  scene.run(5000)
  scene.a.powerCut()
  assert.equal(scene.pair.acknowledged.lackingIn(scene.b.cluster.log), null)
  scene.pair.witness.down--
  scene.heal()
})

test('a pinned primary whose database dies keeps its place where the backup is behind', () => {
  const scene = Scene.protected(twoVolumes)
  scene.pair.witness.down++
  scene.until('the pair is pinned', () => scene.count('pin') === 1, 60_000)
  scene.b.dataDisk.slowMs = 3000
  scene.until('the primary commits alone', () => scene.pair.acknowledged.lackingIn(scene.b.cluster.log) !== null)
  scene.a.cluster.losePostmaster(10)
  scene.run(5000)
  assert.equal(scene.pair.named, 'a')
  assert.equal(scene.a.serves, true)
  scene.b.dataDisk.slowMs = 0
  scene.pair.witness.down--
  scene.heal()
})

test('a standby that is on another timeline is not made the successor, whatever it promises', () => {
  const scene = Scene.protected()
  scene.maintain(1000)
  // As a diverged one does that was started without a look at its log.
  scene.rewrite((from, message) => {
    if (from !== 'b' || message.kind !== 'ack') return message
    const { timeline, lsn } = message.flushed
    return { ...message, flushed: { timeline: timeline - 1, lsn } }
  })
  for (let i = 0; i < 80; i++) {
    scene.run(100)
    assert.equal(scene.value.successor, false)
  }
  scene.heal()
})

test('a backup in its first moments is not the successor yet: the place could not be handed to it, and would be waited for', () => {
  const scene = Scene.protected()
  const { leaseMs } = scene.pair.timing
  scene.b.powerCut()
  scene.until('the shrink is chosen', () => !scene.value.successor)
  scene.run(2 * leaseMs)
  scene.b.boot()
  scene.until('the backup starts', () => scene.b.agent.upSince > 0)
  scene.run(0.3 * leaseMs)
  assert.equal(scene.b.cluster.process, 'standby')
  scene.a.cluster.losePostmaster(10)
  scene.run(30)
  // Half a lease for a pinned hand-over, then a start in place.
  scene.until('somebody serves', () => scene.a.serves || scene.b.serves, 0.5 * leaseMs + 150)
  scene.heal()
})

test('a backup that has not read the register since it booted is not made the successor, however well it follows', () => {
  const scene = Scene.protected()
  const { leaseMs } = scene.pair.timing
  aloneFor(scene, 2 * leaseMs)
  // As one whose read takes long.
  scene.rewrite((from, message) =>
    from === 'b' && message.kind === 'ack' ? { ...message, confirmed: false } : message,
  )
  scene.until('it follows, and replication is proven', () => scene.a.state.database.passedBy !== '', 30_000)
  for (let i = 0; i < 40; i += 1) {
    scene.run(0.1 * leaseMs)
    assert.equal(scene.value.successor, false)
  }
  scene.rewrite((_, message) => message)
  scene.until('it is the successor', () => scene.value.successor)
  scene.heal()
})

test('a backup that stood still for a moment can be handed the place as soon as it hears the primary again', () => {
  const scene = Scene.protected()
  const { leaseMs, silenceMs } = scene.pair.timing
  scene.b.pause('suspend')
  scene.run(0.4 * silenceMs)
  scene.b.goOn()
  scene.run(100)
  assert.equal(scene.value.successor, true)
  scene.a.cluster.losePostmaster(10)
  // Killed, handed over and promoted; not what is left of the lease that the backup waits out before it stands by itself.
  scene.until('the backup serves', () => scene.b.serves, 0.4 * leaseMs)
  assert.ok(scene.b.clock.now < scene.b.state.backup.quarantineUntil)
  scene.heal()
})

test('a backup that starts anew follows as soon as the primary or the witness answers its read; while neither does it follows nobody, promises nothing, and stops nothing', () => {
  const scene = Scene.protected()
  for (const deaf of ['a', 'w'] as const) {
    scene.lose((from, to, { kind }) => from === 'b' && to === deaf && kind === 'prepare')
    scene.b.powerCut()
    scene.until('the shrink is chosen', () => !scene.value.successor)
    scene.b.boot()
    scene.until(`the pair is protected, though ${deaf} hears no read`, () => scene.pair.isProtected(), 60_000)
  }
  scene.lose((from, _to, { kind }) => from === 'b' && kind === 'prepare')
  scene.b.powerCut()
  scene.until('the shrink is chosen', () => !scene.value.successor)
  scene.b.boot()
  scene.run(30_000)
  assert.deepEqual(
    [scene.b.cluster.view().process, scene.b.state.backup.promiseUntil, scene.a.serves],
    ['none', 0, true],
  )
  scene.lose(() => false)
  scene.until('the pair is protected', () => scene.pair.isProtected(), 60_000)
  scene.heal()
})
