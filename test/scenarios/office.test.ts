import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Scene } from './scene.ts'

test('a planned switchover and back: each time the old primary is dead before the new one is named', () => {
  const scene = Scene.protected()
  for (const [host, epoch] of [
    [scene.a, 2],
    [scene.b, 3],
  ] as const) {
    scene.pair.operator.switchover(host)
    scene.until('the other host is primary', () => scene.value.epoch === epoch)
    scene.until('the pair is protected', () => scene.pair.isProtected())
    scene.run(1500)
  }
  scene.heal()
})

test('a switchover that was meant for an earlier epoch does nothing', () => {
  const scene = Scene.protected()
  scene.pair.operator.switchover(scene.a)
  scene.until('the other host is primary', () => scene.value.epoch === 2)
  scene.run(3000)
  scene.tell(scene.b, { command: 'switchover', epoch: 1 })
  scene.tell(scene.a, { command: 'switchover', epoch: 1 })
  scene.run(3000)
  assert.equal(scene.value.epoch, 2)
  scene.heal()
})

test('a primary whose dead database leaves processes that hang resigns only when they are gone', () => {
  const scene = Scene.protected({ change: { oneVolume: false } })
  scene.cut('b', 'a')
  scene.a.dataDisk.hang()
  scene.a.cluster.losePostmaster(60_000)
  scene.run(400)
  scene.a.dataDisk.goOn()
  scene.until('somebody serves', () => scene.a.serves || scene.b.serves)
  scene.heal()
})

test('a primary that votes for its successor has killed its database before it says so', () => {
  const scene = Scene.protected()
  scene.pair.witness.down++
  // It answers, but nothing that it asks for arrives anywhere, its heartbeats neither.
  const asked = new Set(['heartbeat', 'prepare', 'accept', 'cas', 'learn'])
  scene.lose((from, _to, { kind }) => from === 'a' && asked.has(kind))
  scene.until('the backup serves', () => scene.b.serves, 60_000)
  scene.pair.witness.down--
  scene.heal()
})

test('another witness comes in by two changes, one member each', () => {
  const scene = Scene.protected()
  scene.pair.operator.replaceWitness()
  scene.until('the new one is a voter', () => scene.value.voters.w === 'w2', 60_000)
  scene.heal()
})

test('a forced takeover on the host that was primary starts a timeline of its own', () => {
  const scene = Scene.protected()
  const { timeline } = scene.a.cluster.view().end
  scene.pair.operator.force(scene.a, { withWitness: true })
  scene.until('it serves', () => scene.value.gen > 1 && scene.a.serves)
  assert.ok(scene.a.cluster.view().end.timeline > timeline)
  scene.heal()
})

test('a primary that resigned leaves the register to its backup, also where a round of its own is in doubt', () => {
  const scene = Scene.protected()
  const unheard = scene.cut('b', 'a')
  let asked = 0
  scene.lose((from, _to, { kind }) => {
    if (from === 'a' && scene.count('resign') > 0 && kind === 'prepare') asked++
    return kind === 'resign'
  })
  scene.a.cluster.losePostmaster(10)
  scene.until('the primary resigned', () => scene.count('resign') === 1)
  const { lastOwn, known } = scene.a.state.durable
  assert.ok(lastOwn > (known?.ballot ?? 0), 'its hand-over is in doubt')
  scene.run(700)
  assert.equal(asked, 0)
  scene.lose(() => false)
  scene.until('the backup serves', () => scene.b.serves, 500)
  unheard()
  scene.heal()
})

test('a backup that may not succeed asks the witness once a minute, not each lease, while the primary is off', () => {
  const scene = Scene.protected()
  scene.maintain(600_000)
  scene.a.powerCut()
  let asked = 0
  scene.lose((from, to, { kind }) => {
    if (from === 'b' && to === 'w' && kind === 'prepare') asked++
    return false
  })
  scene.run(120_000)
  assert.ok(asked >= 2 && asked <= 5, `${asked} rounds in two minutes`)
  scene.a.boot()
  scene.until('the primary serves again', () => scene.a.serves)
  // What it was refused before keeps it from nothing once it is the successor.
  scene.tell(scene.a, { command: 'maintenance', until: 0 })
  scene.until('the pair is protected', () => scene.pair.isProtected(), 60_000)
  scene.a.powerCut()
  scene.until('the backup serves', () => scene.b.serves, 2 * scene.pair.timing.leaseMs)
  scene.heal()
})

test('a primary whose disk is too slow for a hand-over leaves its backup to take over when the lease ends', () => {
  const scene = Scene.protected({ seed: 2 })
  const { leaseMs, silenceMs, prepareAfterMs, heartbeatMs } = scene.pair.timing
  // A change of the primary's own is in doubt, so that the hand-over takes six writes.
  const heard = scene.cut('b', 'a')
  scene.a.registerDisk.slowMs = 600
  scene.until('a change is under way', () => scene.a.state.round !== null, prepareAfterMs * 2)
  heard()
  scene.run(2 * heartbeatMs)
  scene.a.cluster.losePostmaster(10)
  scene.until('the place is given up', () => scene.a.state.vacate?.end != null, 500)
  scene.until('the backup serves', () => scene.b.serves, (silenceMs + leaseMs) * 1.02 + 300)
  scene.heal()
})

test('a primary whose every write hangs for a while, and then ends, does not bind its backup in between', () => {
  const scene = Scene.protected({ seed: 2, change: { oneVolume: false } })
  const { leaseMs, prepareAfterMs, persistLimitMs } = scene.pair.timing
  scene.a.registerDisk.slowMs = 1.4 * persistLimitMs
  const heard = scene.cut('b', 'a')
  scene.until('a change is under way', () => scene.a.state.round !== null, prepareAfterMs * 2)
  heard()
  scene.until('a write hangs', () => !scene.a.gate.isOpen, 4 * persistLimitMs)
  scene.until('the backup serves', () => scene.b.serves, leaseMs * 1.02 + 300)
  scene.heal()
})

test('a lone primary whose database is slow keeps it and its gate, and starts it anew once it is stuck', () => {
  const scene = Scene.protected()
  scene.b.powerCut()
  scene.until('the primary stands alone', () => !scene.value.successor && scene.a.serves)
  const { cluster } = scene.a
  const { life } = cluster
  cluster.stopped = true
  scene.until('it hangs', () => scene.a.state.database.view.hanging)
  scene.run(1500)
  assert.equal(scene.a.state.gate.set, 'open')
  cluster.stopped = false
  cluster.stream.pump()
  scene.until('it answers', () => !scene.a.state.database.view.hanging)
  assert.equal(cluster.life, life)
  cluster.stopped = true
  scene.until('it was started anew', () => cluster.life > life && scene.a.serves, 10_000)
  scene.heal()
})

test('a database that hangs is handed over where the backup is healthy though pinned, and left alone in maintenance', () => {
  const scene = Scene.protected()
  scene.maintain(60_000)
  const { cluster } = scene.a
  const { life } = cluster
  cluster.stopped = true
  scene.until('it hangs', () => scene.a.state.database.view.hanging)
  scene.run(1500)
  cluster.stopped = false
  cluster.stream.pump()
  scene.run(500)
  assert.deepEqual([cluster.life, scene.value.primary], [life, 'a'])
  scene.pair.witness.down++
  scene.tell(scene.a, { command: 'maintenance', until: 0 })
  scene.run(1000)
  cluster.stopped = true
  scene.until('the backup serves', () => scene.b.serves)
  scene.pair.witness.down--
  scene.heal()
})

test('a switchover that is called off too late is not said to be called off', () => {
  const scene = Scene.protected()
  const said: [string, boolean][] = []
  const { operator } = scene.pair
  const hears = operator.hears.bind(operator)
  operator.hears = (host, effect) => {
    said.push([effect.command, effect.ok])
    hears(host, effect)
  }
  scene.lose((from, _to, message) => from === 'a' && message.kind === 'accept')
  operator.switchover(scene.a)
  scene.until('the other host is named here', () => scene.a.state.durable.acc?.value.primary === 'b')
  scene.tell(scene.a, { command: 'cancelSwitchover' })
  scene.lose(() => false)
  scene.until('the backup serves', () => scene.b.serves)
  scene.run(500)
  assert.deepEqual(said, [
    ['cancelSwitchover', false],
    ['switchover', true],
  ])
  scene.heal()
})
