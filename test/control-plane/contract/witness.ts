import assert from 'node:assert/strict'
import { join } from 'node:path'
import { test } from 'node:test'
import postgres from 'postgres'
import { Cloud } from '../../../node-agent/control/cloud.ts'
import { HostKeys } from '../../../node-agent/control/host-keys.ts'
import { readIdentity, writeIdentity } from '../../../node-agent/control/identity.ts'
import { changeHostKeys, getHost } from '../../../shared/contract/api/hosts.ts'
import { getOperation } from '../../../shared/contract/api/operations.ts'
import { setUpPair } from '../../../shared/contract/api/pairs.ts'
import { headerHost, headerSignature, witnessPath } from '../../../shared/contract/witness.ts'
import { ballotOf } from '../../../shared/protocol/ballot.ts'
import type { RegisterRequest, Value } from '../../../shared/protocol/types.ts'
import { importSigningKey, signRequest } from '../../../shared/signing.ts'
import { temporaryFolder } from '../support/folder.ts'
import { type TestHost, wishOf } from '../support/host.ts'
import { adoptedPair, settings } from '../support/pair.ts'
import type { Runtime } from '../support/runtime.ts'

type Verb = 'admit' | 'vote' | 'keys' | 'retire'

/** A request as a host's own witness client makes it. */
async function ask(
  runtime: Runtime,
  part: { host: TestHost; slot: 'a' | 'b'; verb: Verb; body: object },
): Promise<{ status: number; body: Record<string, unknown> }> {
  const { host, slot, verb } = part
  const path = witnessPath[verb]('orders')
  const body = new TextEncoder().encode(JSON.stringify(part.body))
  const pkcs8 = Buffer.concat([
    Buffer.from('302e020100300506032b657004220420', 'hex'),
    Buffer.from(host.identity.key.d, 'base64url'),
  ])
  const key = await importSigningKey(new Uint8Array(pkcs8))
  const response = await fetch(`${runtime.url}/witness/v1/${host.identity.organisation}${path}`, {
    method: 'POST',
    headers: {
      'content-type': 'application/json',
      [headerHost]: slot,
      [headerSignature]: await signRequest(key, { host: slot, method: 'POST', path, body }),
    },
    body,
  })
  return { status: response.status, body: (await response.json()) as Record<string, unknown> }
}

export const ballot = (n: number): number => ballotOf({ gen: 1, n, node: 'a' })
const nonce = (): string => crypto.randomUUID().replaceAll('-', '')
export const voted = (inc: string, change: Partial<Value> = {}): Value => ({
  gen: 1,
  version: 1,
  epoch: 1,
  primary: 'a',
  successor: false,
  voters: { a: 'inc-a', w: inc },
  ...change,
})

/** Of a pair whose hosts have had the hosted witness admit it. */
export async function admittedPair(runtime: Runtime) {
  const pair = await adoptedPair(runtime)
  const keys = { a: pair.a.identity.key.x, b: pair.b.identity.key.x }
  const request = { nonce: nonce(), replaces: null, keys }
  const answer = await ask(runtime, { host: pair.a, slot: 'a', verb: 'admit', body: request })
  assert.equal(answer.status, 200, JSON.stringify(answer.body))
  const inc = String(answer.body.inc)
  const vote = (body: RegisterRequest, by: { host: TestHost; slot: 'a' | 'b' } = { host: pair.a, slot: 'a' }) =>
    ask(runtime, { ...by, verb: 'vote', body })
  return { ...pair, inc, keys, request, vote }
}

export function witnessTests(runtime: () => Runtime): void {
  const admitted = () => admittedPair(runtime())

  test('the hosted witness is admitted by an enrolled host, accepts the value that adds it, and lets the backup take over', async () => {
    const { inc, vote, request, a, b } = await admitted()
    const again = await ask(runtime(), { host: a, slot: 'a', verb: 'admit', body: request })
    assert.equal(again.body.inc, inc, 'the same nonce gets the same answer')
    const early = await vote({ kind: 'prepare', req: 1, inc, ballot: ballot(1) })
    assert.deepEqual([early.status, early.body.kind], [200, 'none'])
    const value = voted(inc, { successor: true })
    const added = await vote({ kind: 'accept', req: 2, inc, ballot: ballot(2), value })
    assert.deepEqual(added.body, { kind: 'accepted', req: 2, inc, ballot: ballot(2) })
    const takeover = voted(inc, { version: 2, epoch: 2, primary: 'b' })
    const won = await vote(
      { kind: 'cas', req: 3, inc, ballot: ballot(3), expect: ballot(2), value: takeover },
      { host: b, slot: 'b' },
    )
    assert.equal(won.body.kind, 'accepted')
    const late = await vote({ kind: 'cas', req: 4, inc, ballot: ballot(4), expect: ballot(2), value: voted(inc) })
    assert.deepEqual([late.body.kind, (late.body.acc as { value: Value }).value], ['promise', takeover])
  })

  test('a vote that no host of the pair signed is refused, and so is one for another incarnation', async () => {
    const { inc, vote, a, b } = await admitted()
    const request = { kind: 'accept', req: 1, inc, ballot: ballot(1), value: voted(inc) } as const
    const forged = await vote(request, { host: b, slot: 'a' })
    assert.deepEqual([forged.status, forged.body.kind], [401, 'none'])
    const other = await vote({ ...request, inc: 'another' })
    assert.equal(other.body.kind, 'none')
    assert.match(String(other.body.why), /incarnation another is not this witness/)
    const stranger = await adoptedPair(runtime())
    const foreign = await vote(request, {
      host: { ...stranger.a, identity: { ...stranger.a.identity, organisation: a.identity.organisation } },
      slot: 'a',
    })
    assert.equal(foreign.status, 401)
  })

  test('a witness that was admitted anew, or retired, votes no more under the old incarnation', async () => {
    const { inc, vote, a, keys } = await admitted()
    await vote({ kind: 'accept', req: 1, inc, ballot: ballot(1), value: voted(inc) })
    const replaced = await ask(runtime(), {
      host: a,
      slot: 'a',
      verb: 'admit',
      body: { nonce: nonce(), replaces: inc, keys },
    })
    const fresh = String(replaced.body.inc)
    assert.notEqual(fresh, inc)
    assert.equal((await vote({ kind: 'read', req: 2, inc })).body.kind, 'none')
    const stale = await ask(runtime(), {
      host: a,
      slot: 'a',
      verb: 'admit',
      body: { nonce: nonce(), replaces: inc, keys },
    })
    assert.equal(stale.status, 409)
    await ask(runtime(), { host: a, slot: 'a', verb: 'retire', body: { inc: fresh } })
    const after = await vote({ kind: 'accept', req: 3, inc: fresh, ballot: ballot(9), value: voted(fresh) })
    assert.match(String(after.body.why), /was retired/)
  })

  test('a host that has the witness admit its pair without end is told to wait, and the last incarnation votes on', async () => {
    const { inc, vote, a, keys } = await admitted()
    await vote({ kind: 'accept', req: 1, inc, ballot: ballot(1), value: voted(inc) })
    const sql = postgres(runtime().databaseUrl, { max: 1 })
    await sql`update rate_bucket set tokens = 0, at = now() where key = ${`admissions:${a.identity.organisation}/orders`}`
    await sql.end({ timeout: 1 })
    const body = { nonce: nonce(), replaces: inc, keys }
    const refused = await ask(runtime(), { host: a, slot: 'a', verb: 'admit', body })
    assert.deepEqual([refused.status, refused.body.kind], [429, 'none'])
    assert.equal((await vote({ kind: 'read', req: 2, inc })).body.kind, 'state')
  })

  test('a pair that has the name of an ended one gets a witness of its own, and the ended one’s primary keeps its', async () => {
    const { client, id, a, b, keys, inc, vote } = await admitted()
    await vote({ kind: 'accept', req: 1, inc, ballot: ballot(1), value: voted(inc) })
    const sql = postgres(runtime().adminUrl.replace(/[^/]+$/, new URL(runtime().databaseUrl).pathname.slice(1)), {
      max: 1,
    })
    await sql`update pair set state = 'unpaired' where id = ${id}`
    await sql.end({ timeout: 1 })
    const hosts = { a: a.identity.host, b: b.identity.host }
    const again = await client.call(setUpPair, { body: { name: 'orders', hosts, settings, adopt: true } })
    assert.equal(again.status, 202)
    const admit = (replaces: string | null) =>
      ask(runtime(), { host: a, slot: 'a', verb: 'admit', body: { nonce: nonce(), replaces, keys } })
    const made = await admit(null)
    assert.equal(made.status, 200, JSON.stringify(made.body))
    const fresh = String(made.body.inc)
    assert.notEqual(fresh, inc)
    const old = await vote({ kind: 'read', req: 2, inc })
    assert.deepEqual([old.body.kind, old.body.promised], ['state', ballot(1)])
    const added = await vote({ kind: 'accept', req: 3, inc: fresh, ballot: ballot(7), value: voted(fresh) })
    assert.equal(added.body.kind, 'accepted')
    assert.equal((await admit(null)).status, 409, 'the new pair has one')
  })

  test('keys that the hosts did not enrol with open no witness', async () => {
    const { a, b } = await adoptedPair(runtime())
    const keys = { a: a.identity.key.x, b: a.identity.key.x }
    const answer = await ask(runtime(), {
      host: a,
      slot: 'a',
      verb: 'admit',
      body: { nonce: nonce(), replaces: null, keys },
    })
    assert.equal(answer.status, 403)
    void b
  })

  test('the keys that a host enrolled with are changed in place: the new ones vote, and those before open nothing', async () => {
    const { client, inc, vote, a, b } = await admitted()
    await vote({ kind: 'accept', req: 1, inc, ballot: ballot(1), value: voted(inc) })
    const before = { ...a, identity: { ...a.identity } }
    const path = join(temporaryFolder(), 'identity.json')
    await writeIdentity(path, a.identity)
    const keys = new HostKeys({ identity: a.identity, path })
    const unasked = await keys.change('01j00000000000000000000000')
    assert.deepEqual([unasked.phase, a.identity.key], ['refused', before.identity.key])
    assert.match(unasked.message, /^the keys are as they were: nobody asks host alpha for new keys/)
    const params = { host: a.identity.host }
    const begun = await client.call(changeHostKeys, { params, body: { reason: 'a year is over' } })
    const asked = await a.nextCommand()
    assert.equal(asked.verb, 'hostKeys')
    assert.equal((await keys.change(asked.operation)).phase, 'done')
    await a.ack(asked, { phase: 'done' })
    const { body: done } = await client.call(getOperation, { params: { operation: begun.body.id }, wait: 5 })
    assert.equal(done.state, 'succeeded', done.message)
    const { body: shown } = await client.call(getHost, { params })
    const { publicKey } = shown
    assert.deepEqual([publicKey, readIdentity(path)?.key.x], [a.identity.key.x, a.identity.key.x])
    assert.notEqual(publicKey, before.identity.key.x)
    const old = await new Cloud(before.identity).pull()
    assert.ok(!old.ok && old.status === 401)
    assert.equal((await vote({ kind: 'read', req: 2, inc }, { host: before, slot: 'a' })).status, 401)
    assert.equal((await vote({ kind: 'read', req: 3, inc })).body.kind, 'state')
    assert.equal((await wishOf(b))?.peer.publicKey, publicKey, 'the other host is told')
    await a.send()
  })

  test('an admission that is asked for many times at once makes one incarnation, and another one beside it none', async () => {
    const { a, b } = await adoptedPair(runtime())
    const keys = { a: a.identity.key.x, b: b.identity.key.x }
    const same = { nonce: nonce(), replaces: null, keys }
    const admit = (body: object) => ask(runtime(), { host: a, slot: 'a', verb: 'admit', body })
    const answers = await Promise.all(Array.from({ length: 8 }, () => admit(same)))
    assert.deepEqual(
      [...new Set(answers.map(one => `${one.status} ${one.body.inc}`))].length,
      1,
      JSON.stringify(answers),
    )
    const late = await admit({ ...same, nonce: nonce() })
    assert.deepEqual([late.status, late.body.present], [409, answers[0]?.body.inc])
  })

  test('a database on another timeline than at the admission has no vote, nor has a copy of it that a dump was read back into', async () => {
    const { inc, vote, a } = await admitted()
    await vote({ kind: 'accept', req: 1, inc, ballot: ballot(1), value: voted(inc) })
    assert.equal((await vote({ kind: 'read', req: 2, inc })).body.kind, 'state')
    // What a restore leaves behind: the row of the admission, on the timeline before.
    const sql = postgres(runtime().adminUrl.replace(/[^/]+$/, new URL(runtime().databaseUrl).pathname.slice(1)), {
      max: 1,
    })
    const mine = sql`organisation = ${a.identity.organisation}`
    await sql`update witness_vote set tl = tl + 1 where ${mine}`
    const silent = await vote({ kind: 'read', req: 3, inc })
    assert.match(String(silent.body.why), /restored or promoted/)
    assert.equal((await vote({ kind: 'prepare', req: 4, inc, ballot: ballot(5) })).body.kind, 'none')
    await sql`update witness_vote set tl = tl - 1 where ${mine}`
    assert.equal((await vote({ kind: 'read', req: 5, inc })).body.kind, 'state')
    // What reading a dump back leaves behind: the same rows and the same timeline, in another table.
    await sql.begin(async tx => {
      await tx`create table read_back (like witness_vote including all)`
      await tx`insert into read_back select * from witness_vote`
      await tx`alter table witness_vote rename to dropped`
      await tx`alter table read_back rename to witness_vote`
      await tx`grant all on witness_vote to public`
    })
    const copied = await vote({ kind: 'prepare', req: 6, inc, ballot: ballot(9) })
    await sql.begin(async tx => {
      await tx`drop table witness_vote`
      await tx`alter table dropped rename to witness_vote`
    })
    await sql.end({ timeout: 1 })
    assert.match(String(copied.body.why), /restored from a dump/)
  })
}
