import assert from 'node:assert/strict'
import { test } from 'node:test'
import { statusOf } from '../../shared/protocol/status.ts'
import { profileNames } from '../../shared/protocol/timing.ts'
import type { Host } from '../simulation/host.ts'
import { Scene } from './scene.ts'

const statusNow = (host: Host) => statusOf(host.state, host.clock.now)

test('a backup that leaves the pair for good is removed and its database ended, and it is a member again when it is started anew', () => {
  const scene = Scene.protected()
  const epoch = scene.value.epoch
  scene.tell(scene.b, { command: 'depart' })
  scene.until('it is removed', () => scene.value.voters.b === undefined)
  scene.until('its database is ended', () => scene.b.cluster.view().process === 'none')
  scene.run(2000)
  assert.deepEqual([scene.value.epoch, scene.value.successor, scene.a.serves], [epoch, false, true])
  assert.equal(statusNow(scene.b).role, 'not a member')
  scene.b.powerCut()
  scene.run(5000)
  assert.match(statusNow(scene.a).why, /no other host is a member of this pair/)
  assert.equal(scene.value.voters.b, undefined, 'nobody takes it back in')
  scene.b.boot()
  scene.until('the pair is protected', () => scene.pair.isProtected(), 60_000)
  scene.heal()
})

test('a primary that leaves the pair for good hands over first', () => {
  const scene = Scene.protected()
  scene.tell(scene.a, { command: 'depart' })
  scene.until('the other host serves and is alone', () => scene.b.serves && scene.value.voters.a === undefined)
  assert.equal(scene.value.primary, 'b')
  scene.until('its database is ended', () => scene.a.cluster.view().process === 'none')
  scene.a.powerCut()
  scene.a.boot()
  scene.until('the pair is protected', () => scene.pair.isProtected(), 60_000)
  scene.heal()
})

test('a host that was removed while it read the register follows the primary again', () => {
  const scene = Scene.protected()
  scene.tell(scene.a, { command: 'depart' })
  scene.until('the other host is primary', () => scene.value.primary === 'b')
  // It does not hear of its removal until it has begun a read of its own, which reaches nobody.
  scene.lose((_from, to, { kind }) => to === 'a' && (kind === 'accept' || kind === 'learn'))
  scene.until('it is removed', () => scene.value.voters.a === undefined)
  scene.a.powerCut()
  scene.lose((_from, to, { kind }) => kind === 'prepare' || (to === 'a' && kind === 'learn'))
  scene.a.boot()
  scene.until('it reads', () => scene.a.state.round?.change === 'confirm')
  scene.lose((_from, _to, { kind }) => kind === 'prepare')
  scene.until('it heard of it', () => scene.a.state.durable.known?.value.voters.a === undefined)
  scene.a.powerCut()
  scene.lose(() => false)
  scene.a.boot()
  scene.until('the pair is protected', () => scene.pair.isProtected(), 60_000)
  scene.heal()
})

test('a backup that is told to leave the pair for good while it is handed the place gives it back and is removed', () => {
  const scene = Scene.protected()
  scene.pair.operator.switchover(scene.a)
  scene.until('the primary gives its place up', () => scene.a.state.vacate !== null)
  scene.tell(scene.b, { command: 'depart' })
  scene.until('it is handed the place', () => scene.value.primary === 'b')
  scene.until('the other host serves and is alone', () => scene.a.serves && scene.value.voters.b === undefined)
  scene.until('its database is ended', () => scene.b.cluster.view().process === 'none')
  scene.b.powerCut()
  scene.b.boot()
  scene.until('the pair is protected', () => scene.pair.isProtected(), 60_000)
  scene.heal()
})

test('a hand-over that reached nobody is settled as soon as somebody is heard, also where the backup may not stand', () => {
  const scene = Scene.protected()
  scene.maintain(600_000)
  scene.run(1000)
  scene.lose((from, _to, { kind }) => from === 'a' && kind === 'accept')
  scene.pair.operator.switchover(scene.a)
  scene.until('it is proposed', () => scene.a.state.durable.acc?.value.primary === 'b')
  const ends = [scene.cutBoth('a', 'b'), scene.cutBoth('a', 'w')]
  scene.lose(() => false)
  // Meanwhile the backup stands, and is refused: there is no successor.
  scene.run(4000)
  for (const end of ends) end()
  scene.until('one of them serves', () => scene.a.serves || scene.b.serves, 4000)
  scene.pair.each(host => scene.tell(host, { command: 'maintenance', until: 0 }))
  scene.heal()
})

test('a primary with nobody to hand over to stays, and takes the wish to leave for undone', () => {
  const scene = Scene.protected()
  scene.b.powerCut()
  scene.until('the shrink is chosen', () => !scene.value.successor)
  scene.tell(scene.a, { command: 'depart' })
  scene.run(1000)
  assert.deepEqual([scene.value.primary, scene.a.serves, scene.a.state.duty.leaving], ['a', true, 'no'])
  scene.heal()
})

test('a backup that says each time that it goes is made the successor at once when it is back, however often', () => {
  const scene = Scene.protected()
  for (let restarts = 0; restarts < 5; restarts += 1) {
    scene.tell(scene.b, { command: 'leave' })
    scene.until('the shrink is chosen', () => !scene.value.successor)
    scene.b.powerCut()
    scene.run(500)
    scene.b.boot()
    scene.until('the pair is protected', () => scene.pair.isProtected(), 30_000)
  }
  assert.equal(scene.a.state.duty.regrowMs, 0)
  // One that is lost without a word is held down, and longer each time.
  scene.b.powerCut()
  scene.until('the shrink is chosen', () => !scene.value.successor)
  scene.run(50)
  assert.equal(scene.a.state.duty.regrowMs, scene.a.state.timing.regrowAfterMs)
  scene.heal()
})

test('a primary whose register takes no write any more is replaced in calm, before the register is needed', () => {
  const scene = Scene.protected({ change: { oneVolume: false } })
  scene.run(30_000)
  const epoch = scene.value.epoch
  scene.a.registerDisk.hang()
  scene.until('the other host serves', () => scene.b.serves, 15_000)
  assert.equal(scene.value.epoch, epoch + 1)
  scene.a.registerDisk.goOn()
  scene.heal()
})

test('a backup whose register takes no write any more is not called a protection', () => {
  const scene = Scene.protected({ change: { oneVolume: false, strictQueue: false } })
  scene.run(30_000)
  scene.b.registerDisk.hang()
  scene.until('the shrink is chosen', () => !scene.value.successor, 15_000)
  scene.run(100)
  assert.match(statusNow(scene.a).why, /its store has taken no write/)
  scene.b.registerDisk.goOn()
  scene.heal()
})

test('a primary that is told to stop while a change is in doubt hands over once that is settled', () => {
  const scene = Scene.protected()
  const { silenceMs, leaseMs } = scene.a.agent.timing
  scene.lose(from => from === 'b')
  scene.until(
    'a change is in doubt',
    () => scene.a.state.durable.lastOwn > (scene.a.state.durable.known?.ballot ?? 0),
    2 * silenceMs,
  )
  scene.tell(scene.a, { command: 'leave' })
  scene.run(5)
  assert.equal(scene.value.primary, 'a')
  scene.lose(() => false)
  scene.until('the backup serves', () => scene.b.serves, leaseMs / 2)
  scene.a.powerCut()
  scene.run(500)
  scene.a.boot()
  scene.heal()
})

test('a planned hand-over of which the backup hears nothing, or the primary no answer, leaves the place to the backup', () => {
  for (const profile of profileNames) {
    for (const mute of ['both', 'the backup'] as const) {
      // The longest that a promise may last: the primary's clock is quick, the backup's slow.
      const scene = Scene.protected({ change: { profile, rates: { a: 1.02, b: 0.98 } } })
      const { leaseMs, silenceMs, drift } = scene.a.agent.timing
      scene.lose((from, to) => to !== 'w' && (mute === 'both' || from === 'b'))
      scene.pair.operator.switchover(scene.a)
      scene.until('the primary gives its place up', () => scene.a.state.vacate !== null, silenceMs)
      // Until the place is late the backup may hear the primary, and is bound for a lease more.
      scene.until('the backup serves', () => scene.b.serves, (leaseMs + silenceMs) / (1 - drift) + 500)
      scene.heal()
    }
  }
})

test('a primary that gives its place up and is heard again does not outbid the backup that stands meanwhile', () => {
  // Of two ballots of one number that of b is the higher one.
  const scene = Scene.protected({ change: { primary: 'b' } })
  const { leaseMs, silenceMs, resendMs } = scene.b.agent.timing
  const stood = new Set<number>()
  let lost: 'all of b' | 'the votes' | 'nothing' = 'all of b'
  scene.lose((from, to, message) => {
    if (message.kind === 'cas') stood.add(message.ballot)
    return (message.kind === 'cas' && lost !== 'nothing') || (lost === 'all of b' && (from === 'b' || to === 'b'))
  })
  scene.pair.operator.switchover(scene.b)
  scene.until('the primary gives its place up', () => scene.b.state.vacate !== null, silenceMs)
  scene.until('the backup stands', () => stood.size > 0, 2 * leaseMs)
  lost = 'the votes'
  scene.run(2 * resendMs)
  lost = 'nothing'
  scene.until('the backup serves', () => scene.a.serves, leaseMs)
  assert.equal(stood.size, 1)
  scene.heal()
})
