import assert from 'node:assert/strict'
import { test } from 'node:test'
import { readApplied } from '../../node-agent/applied-wish.ts'
import type { ApplyOutcome } from '../../node-agent/control/session.ts'
import { type Change, pairOf } from './settings-pair.ts'

const whyOf = (outcome: ApplyOutcome): string => (outcome.ok ? 'taken' : outcome.why)

test('both hosts take another profile, the backup first, and keep nothing of the one before once both have it', async t => {
  const { a, b, take, rounds } = await pairOf(t)
  const change = { profile: 'conservative' as const }
  assert.match(whyOf(await take(a, change)), /the other host takes them first/)
  assert.equal(a.config?.profile, 'default')
  assert.match(whyOf(await take(b, change)), /starts anew/)
  assert.match(whyOf(await take(b, change)), /the other one not yet/)
  assert.deepEqual(await rounds(change), { a: { ok: true }, b: { ok: true } })
  for (const host of [a, b]) {
    assert.deepEqual([host.config?.profile, host.restarts], ['conservative', 1])
    assert.equal(readApplied(host.stateDir)?.previous, null)
  }
})

test('the backup goes back to what both had where the primary refuses, and both say why', async t => {
  const { a, b, take, rounds } = await pairOf(t)
  const change = { profile: 'conservative' as const }
  await take(b, change)
  a.objection = config => (config.profile === 'conservative' ? 'profile conservative does not fit here' : null)
  const said = await rounds(change)
  assert.match(whyOf(said.a), /does not fit here/)
  assert.match(whyOf(said.b), /the other host did not take them: profile conservative does not fit here/)
  for (const host of [a, b]) assert.equal(host.config?.profile, 'default')
  assert.equal(a.restarts, 0)
  // Once the reason is gone another wish is taken as ever.
  a.objection = () => null
  assert.deepEqual(await rounds({ profile: 'fast' }), { a: { ok: true }, b: { ok: true } })
})

test('a host that is refused by the other one before it begins changes nothing, and takes part once the reason is gone', async t => {
  const { a, b, rounds } = await pairOf(t)
  const change = { protectedPorts: [5432, 8080] }
  a.objection = config => (config.protectedPorts.includes(8080) ? 'port 8080 is taken' : null)
  const said = await rounds(change)
  assert.match(whyOf(said.a), /port 8080 is taken/)
  assert.match(whyOf(said.b), /the other host did not take them/)
  assert.deepEqual([a.restarts, b.restarts], [0, 0])
  a.objection = () => null
  assert.deepEqual(await rounds(change), { a: { ok: true }, b: { ok: true } })
})

test('a primary that never follows leaves the backup on the old profile after three minutes; other settings stay there', async t => {
  const { a, b, clock, take } = await pairOf(t)
  const waits = async (change: Change): Promise<ApplyOutcome> => {
    await take(b, change)
    await take(b, change)
    clock.ms += 181_000
    return take(b, change)
  }
  assert.match(whyOf(await waits({ profile: 'fast' })), /did not take them within 180 s/)
  assert.equal(b.config?.profile, 'default')
  assert.deepEqual(await waits({ protectedPorts: [5432, 9000] }), { ok: true })
  assert.equal(a.restarts, 0)
})

test('a primary that does not serve with new settings takes them back, and the backup with it', async t => {
  const { a, b, clock, take, rounds } = await pairOf(t)
  const change = { profile: 'conservative' as const }
  await take(b, change)
  await take(b, change)
  await take(a, change)
  assert.equal(a.config?.profile, 'conservative')
  a.serving = false
  clock.ms += 46_000
  assert.match(whyOf(await take(a, change)), /was not well with them within 45 s/)
  a.serving = true
  const said = await rounds(change)
  assert.match(whyOf(said.b), /the other host did not take them: this host was not well/)
  for (const host of [a, b]) assert.equal(host.config?.profile, 'default')
})

test('new addresses of both hosts are used beside the old ones until both have them; a path that stays mute takes them back', async t => {
  const hosts = { a: { addresses: ['10.9.2.1', '10.9.3.1'] }, b: { addresses: ['10.9.2.2', '10.9.3.2'] } }
  const { a, b, take, rounds } = await pairOf(t)
  await take(b, { hosts })
  assert.equal(b.config?.peer.paths.length, 4)
  assert.deepEqual(await rounds({ hosts }), { a: { ok: true }, b: { ok: true } })
  for (const host of [a, b])
    assert.deepEqual([host.config?.peer.paths.map(path => path.local), host.restarts], [hosts[host.node].addresses, 2])
  const absent = { a: { addresses: ['10.9.7.1'] }, b: { addresses: ['10.9.7.2'] } }
  const refused = await rounds({ hosts: absent })
  assert.match(whyOf(refused.b), /hosts\.b\.addresses has 10\.9\.7\.2, and no interface of this host has that address/)
  assert.deepEqual([a.restarts, b.restarts], [2, 2])
})

const keyChange = '01j00000000000000000000042'

test('new keys are made by the backup and taken over by the primary; the old ones go on the backup first, once both use the new', async t => {
  const { a, b, take, rounds } = await pairOf(t)
  assert.match(whyOf(await take(a, { keyChange })), /the other host takes them first/)
  await take(b, { keyChange })
  assert.deepEqual([b.openKeys, b.offered, a.openKeys], [keyChange, null, null])
  await take(b, { keyChange })
  await take(a, { keyChange })
  assert.deepEqual([a.openKeys, a.offered], [keyChange, `offer of ${keyChange}`])
  await take(a, { keyChange })
  assert.match(whyOf(await take(a, { keyChange })), /the other host shows no certificate of the new authority/)
  assert.match(whyOf(await take(b, { keyChange })), /starts anew with certificates of the new authority/)
  assert.match(whyOf(await take(b, { keyChange })), /the other host shows no certificate/)
  assert.match(whyOf(await take(a, { keyChange })), /starts anew with certificates of the new authority/)
  assert.match(whyOf(await take(a, { keyChange })), /the other host lets the old key go first/)
  assert.deepEqual(await rounds({ keyChange }), { a: { ok: true }, b: { ok: true } })
  for (const host of [a, b]) {
    assert.deepEqual([host.keysHeld, host.openKeys, host.restarts], [keyChange, null, 3])
    assert.deepEqual([[...host.trusted], host.shown], [[keyChange], keyChange])
  }
})

test('a primary that gets no certificate of the new authority has both go back, and each takes what the other shows meanwhile', async t => {
  const { a, b, take, rounds } = await pairOf(t)
  a.certifies = () => assert.fail('openssl is missing')
  for (const host of [b, b, a, a, b, b]) await take(host, { keyChange })
  assert.deepEqual([b.shown, a.shown], [keyChange, 'of the set-up'])
  assert.match(whyOf(await take(a, { keyChange })), /openssl is missing/)
  assert.ok(a.trusted.has(b.shown) && b.trusted.has(a.shown))
  const said = await rounds({ keyChange })
  assert.match(whyOf(said.b), /the other host did not take them: openssl is missing/)
  for (const host of [a, b])
    assert.deepEqual([host.keysHeld, host.openKeys, host.shown], ['of the set-up', null, 'of the set-up'])
})

test('a backup that hears nothing of a primary which has let the old key go keeps both until it does', async t => {
  const { a, b, clock, take, rounds } = await pairOf(t)
  for (const host of [b, b, a, a, b, b, a]) await take(host, { keyChange })
  for (const host of [a, b]) host.isPrimary = host === b
  assert.match(whyOf(await take(a, { keyChange })), /without the old key/)
  assert.deepEqual([a.keysHeld, b.keysHeld], [keyChange, 'of the set-up'])
  for (const host of [a, b]) Object.assign(host, { isPrimary: host === a, heard: false })
  clock.ms += 600_000
  assert.match(whyOf(await take(b, { keyChange })), /old and new keys are taken until the other host says/)
  for (const host of [a, b]) host.heard = true
  assert.deepEqual(await rounds({ keyChange }), { a: { ok: true }, b: { ok: true } })
})

test('whatever comes between while the keys are changed, each host takes what the other one shows, and in the end both have the same', async t => {
  for (let seed = 1; seed <= seeds; seed++) {
    const random = randomOf(seed)
    const { a, b, clock, take, rounds } = await pairOf(t)
    const story: string[] = []
    for (const host of [a, b]) host.hasAuthority = seed % 4 !== 0
    let wanted = 0
    const name = (): string => `01j0000000000000000000005${wanted}`
    const look = (): void => {
      const keys = [a, b].map(host => [host.keysHeld, ...(host.openKeys === null ? [] : [host.openKeys])])
      const common = keys[0]!.some(key => keys[1]!.includes(key))
      const where = `seed ${seed}: ${story.join(', ')}`
      assert.ok(a.trusted.has(b.shown) && b.trusted.has(a.shown), `${where}: a certificate is not taken`)
      assert.ok(common, `${where}: no key is common`)
    }
    for (let moment = 0; moment < 30; moment++) {
      const host = random() < 0.5 ? a : b
      const what = random()
      if (what < 0.6) {
        host.killed = random() < 0.1
        host.cutOff = random() < 0.1
        story.push(`${host.node}${host.killed ? ' killed' : ''}${host.cutOff ? ' cut off' : ''}`)
        await take(host, { keyChange: name() })
        Object.assign(host, { killed: false, cutOff: false })
      } else if (what < 0.7) {
        for (const one of [a, b]) one.isPrimary = one !== host
        story.push(`${host.node} backup`)
      } else if (what < 0.8) {
        for (const one of [a, b]) one.heard = random() < 0.6
        story.push(a.heard ? 'heard' : 'silent')
      } else if (what < 0.85) {
        const why = random() < 0.5 ? 'not fit' : null
        host.objection = () => why
        story.push(`${host.node} ${why ?? 'fit'}`)
      } else if (what < 0.97) {
        clock.ms += 70_000
        story.push('70 s')
      } else {
        wanted++
        story.push('another change')
      }
      look()
    }
    for (const host of [a, b]) Object.assign(host, { heard: true, objection: () => null, isPrimary: host === a })
    // What was refused is not tried again; another change is.
    for (let round = 0; round < 20; round++) {
      if (round === 10) wanted++
      await rounds({ keyChange: name() })
      clock.ms += 61_000
      look()
    }
    const held = [a, b].map(host => [host.keysHeld, host.openKeys, host.shown])
    assert.deepEqual(held[0], held[1], `seed ${seed}: ${story.join(', ')}`)
    assert.deepEqual([a.openKeys, a.keysHeld], [null, name()])
    if (a.hasAuthority) assert.equal(a.shown, a.keysHeld)
  }
})
const seeds = Number(process.env.SEEDS ?? 20)

/** Mulberry32: the same story for the same seed. */
function randomOf(seed: number): () => number {
  let state = seed
  return () => {
    state = (state + 0x6d2b79f5) | 0
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state)
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }
}

test('a host that is killed as it takes new keys back has none of them once it is started again', async t => {
  const { a, b, take, rounds } = await pairOf(t)
  await take(b, { keyChange })
  a.objection = () => 'openssl is missing'
  b.killedAtKeys = true
  await rounds({ keyChange })
  assert.equal(b.openKeys, keyChange)
  b.killedAtKeys = false
  await b.start()
  assert.match(whyOf(await take(b, { keyChange })), /the other host did not take them/)
  assert.deepEqual([b.keysHeld, b.openKeys], ['of the set-up', null])
})

test('a primary that can not take the new keys has the backup go back to the old ones', async t => {
  const { a, b, take, rounds } = await pairOf(t)
  await take(b, { keyChange })
  a.objection = () => 'openssl is missing'
  const said = await rounds({ keyChange })
  assert.match(whyOf(said.b), /the other host did not take them: openssl is missing/)
  for (const host of [a, b]) assert.deepEqual([host.keysHeld, host.openKeys], ['of the set-up', null])
})
