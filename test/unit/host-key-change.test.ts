import assert from 'node:assert/strict'
import { mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import type { Config } from '../../node-agent/config.ts'
import {
  type HostKey,
  hostKeyOf,
  makeHostKeyPem,
  pemsOf,
  readHostKey,
  readHostKeys,
  writeHostKey,
} from '../../node-agent/keys/host-key.ts'
import { takeHostKeys } from '../../node-agent/pair/keys.ts'
import { admitPair, changeHostKeys, presentKeys } from '../../node-agent/witness/admission.ts'
import { changeHostKey, changeLostHostKey } from '../../node-agent/witness/host-key-change.ts'
import type { RunningWitness } from '../../node-agent/witness-server/main.ts'
import { callerOf, newNonce, voterOf, witnessIn } from '../fixtures/witness.ts'

/** Host a of a pair with two witnesses as they run: both know its key and the other host's. */
async function pairAt(t: TestContext) {
  const folder = mkdtempSync(join(tmpdir(), 'understudy-host-key-'))
  const file = join(folder, 'host.key')
  const pem = makeHostKeyPem()
  await writeHostKey(file, pem)
  const otherPem = makeHostKeyPem()
  const [own, other] = [await hostKeyOf(pem), await hostKeyOf(otherPem)]
  const running: RunningWitness[] = []
  const incs: string[] = []
  for (const name of ['w1', 'w2']) {
    mkdirSync(join(folder, name))
    const witness = await witnessIn(join(folder, name))
    running.push(witness)
    const request = { nonce: newNonce(), replaces: null, keys: { a: own.publicKey, b: other.publicKey } }
    const { enrolmentToken } = witness.identity
    const answer = await admitPair(callerOf(witness, { pair: 'orders', key: own }), { request, enrolmentToken })
    assert.ok(answer.ok)
    incs.push(answer.reply.inc)
  }
  t.after(async () => {
    for (const witness of running) await witness.close()
    rmSync(folder, { recursive: true, force: true })
  })
  const at = (which: number) => {
    const { port, identity } = running[which]!
    return { url: `https://127.0.0.1:${port}`, fingerprint: identity.fingerprint, hosted: false, inc: incs[which]! }
  }
  const witness: Config['witness'] = { ...at(0), alternate: at(1), former: null, awayS: 600 }
  const held: string[] = []
  const change = (tellOther: (text: string) => Promise<void> = async text => void held.push(text)) =>
    changeHostKey({ config: { pair: 'orders', node: 'a', witness, hostKeyFile: file }, tellOther })
  /** The other host is gone for good; what is kept of its keys here. */
  const kept = { text: otherPem }
  const changeLost = () =>
    changeLostHostKey({
      config: { pair: 'orders', node: 'a', witness, hostKeyFile: file },
      before: kept.text,
      hold: async text => {
        kept.text = text
      },
    })
  const caller = (which: number, key: HostKey, host: 'a' | 'b' = 'a') =>
    callerOf(running[which]!, { pair: 'orders', key, host })
  /** By the other host's key, which nobody changes. */
  const known = async (which: number) => {
    const answer = await presentKeys(caller(which, other, 'b'))
    assert.ok(answer.ok, 'the other host is known')
    return answer.reply
  }
  const vote = { kind: 'read', req: 1, inc: incs[0]! } as const
  const voter = () => {
    const otherKeys = async () => (await readHostKeys(file)).map(key => key.signingKey)
    const made = voterOf({ ...caller(0, own), otherKeys })
    t.after(() => made.close())
    return made
  }
  return {
    folder,
    file,
    own,
    other,
    otherPem,
    pem,
    running,
    incs,
    held,
    change,
    kept,
    changeLost,
    caller,
    known,
    vote,
    voter,
  }
}

const untouched = async ({ file, pem, own, known }: Awaited<ReturnType<typeof pairAt>>): Promise<void> => {
  assert.equal(readFileSync(file, 'utf8'), pem)
  for (const which of [0, 1]) assert.equal((await known(which)).keys.a, own.publicKey)
}

test('both witnesses know the host by its new key, which the other host holds too; who votes by the one before goes on without losing a vote', async t => {
  const pair = await pairAt(t)
  const voter = pair.voter()
  const notAdded = /its members have not added this witness yet/
  assert.match(String(await voter.ask(pair.vote)), notAdded)
  assert.match(await pair.change(), /know host a by a new key/)
  const now = await readHostKey(pair.file)
  assert.notEqual(now.publicKey, pair.own.publicKey)
  for (const which of [0, 1])
    assert.deepEqual((await pair.known(which)).keys, { a: now.publicKey, b: pair.other.publicKey })
  const before = await presentKeys(pair.caller(0, pair.own))
  assert.ok(!before.ok && /no valid signature/.test(before.why), 'the key before opens nothing')
  // The running agent holds that one.
  assert.match(String(await voter.ask(pair.vote)), notAdded)
  assert.deepEqual(voter.failures, [])
  assert.equal(pair.held.at(-1), readFileSync(pair.file, 'utf8'))
  // And once more: what no witness knows any more goes.
  await pair.change()
  await pair.change()
  assert.equal(pemsOf(readFileSync(pair.file, 'utf8')).length, 3)
  assert.match(String(await pair.voter().ask(pair.vote)), notAdded)
})

test('where the other host does not hold the key, or a witness is away, everything is as it was', async t => {
  const pair = await pairAt(t)
  let told = false
  const silent = pair.change(async () => {
    if (told) return
    told = true
    throw new Error('the other host is silent')
  })
  await assert.rejects(silent, /the other host is silent; the key of host a is as it was/)
  await untouched(pair)
  const { port } = pair.running[1]!
  await pair.running[1]!.close()
  await assert.rejects(
    pair.change(async () => assert.fail('nobody is told')),
    /does not say by which keys it knows this pair.*nothing was changed/,
  )
  pair.running[1] = await witnessIn(join(pair.folder, 'w2'), { port })
  await untouched(pair)
})

test('a witness that is lost in the middle has the other one told the key of before; a request that comes late does not count, and the change is asked for again', async t => {
  const pair = await pairAt(t)
  const { port } = pair.running[1]!
  const lost = async (): Promise<void> => pair.running[1]!.close()
  await assert.rejects(pair.change(lost), /Every key of this host is kept and used/)
  const [first, second] = await readHostKeys(pair.file)
  assert.equal(first?.publicKey, pair.own.publicKey)
  const { keys, keysGeneration, inc } = await pair.known(0)
  assert.equal(keys.a, pair.own.publicKey)
  const late = { inc, generation: keysGeneration - 1, keys: { a: second!.publicKey, b: pair.other.publicKey } }
  assert.equal((await changeHostKeys(pair.caller(0, pair.own), late)).ok, false)
  pair.running[1] = await witnessIn(join(pair.folder, 'w2'), { port })
  await pair.change()
  const now = await readHostKey(pair.file)
  for (const which of [0, 1]) assert.equal((await pair.known(which)).keys.a, now.publicKey)
})

test('an agent that was killed after a witness was told votes by the key that it knows, and the change is ended by asking again', async t => {
  const pair = await pairAt(t)
  const made = makeHostKeyPem()
  await writeHostKey(pair.file, pair.pem + made)
  const { inc, keysGeneration } = await pair.known(0)
  const keys = { a: (await hostKeyOf(made)).publicKey, b: pair.other.publicKey }
  const told = await changeHostKeys(pair.caller(0, pair.own), { inc, generation: keysGeneration + 1, keys })
  assert.ok(told.ok)
  const voter = pair.voter()
  assert.match(String(await voter.ask(pair.vote)), /its members have not added this witness yet/)
  await pair.change()
  const now = await readHostKey(pair.file)
  for (const which of [0, 1]) assert.equal((await pair.known(which)).keys.a, now.publicKey)
})

test('a witness that knows the host by a key that is not here, or a pair without a witness of its own, is refused before anything is made', async t => {
  const pair = await pairAt(t)
  const stranger = makeHostKeyPem()
  await writeHostKey(pair.file, stranger)
  await assert.rejects(pair.change(), /does not say by which keys.*no valid signature.*nothing was changed/)
  assert.equal(readFileSync(pair.file, 'utf8'), stranger)
  const config = { pair: 'orders', node: 'a', witness: null, hostKeyFile: pair.file } as const
  await assert.rejects(changeHostKey({ config, tellOther: async () => assert.fail('nobody is told') }), /no witness/)
})

test('a host that is gone for good is known to no witness any more, and one that joins in its place is; a witness that is away is told by asking again', async t => {
  const pair = await pairAt(t)
  const { port } = pair.running[1]!
  await pair.running[1]!.close()
  assert.match(await pair.changeLost(), /^the witness https:\/\/127.0.0.1:\d+ does not say by which keys/)
  const opens = async (which: number, pem: string): Promise<boolean> =>
    (await presentKeys(pair.caller(which, await hostKeyOf(pem), 'b'))).ok
  assert.equal(await opens(0, pair.otherPem), false, 'the lost host')
  const [next = '', before] = pemsOf(pair.kept.text)
  assert.equal(before, pair.otherPem, 'it may count there yet')
  assert.equal(await opens(0, next), true)
  pair.running[1] = await witnessIn(join(pair.folder, 'w2'), { port })
  assert.equal(await pair.changeLost(), '')
  const [joins = '', ...others] = pemsOf(pair.kept.text)
  assert.deepEqual(others, [])
  for (const which of [0, 1])
    assert.deepEqual([await opens(which, pair.otherPem), await opens(which, joins)], [false, true])
  // This host votes on as before.
  assert.match(String(await pair.voter().ask(pair.vote)), /its members have not added this witness yet/)
})

test('a host that was shut out and joins by a newer token is known to the witness by the key that came with it', async t => {
  const pair = await pairAt(t)
  const file = join(pair.folder, 'shut-out.key')
  await writeHostKey(file, pair.otherPem)
  assert.equal(await pair.changeLost(), '')
  const opens = async (): Promise<boolean> => (await presentKeys(pair.caller(0, await readHostKey(file), 'b'))).ok
  assert.equal(await opens(), false)
  await takeHostKeys(file, pair.kept.text)
  assert.equal(await opens(), true)
  const taken = readFileSync(file, 'utf8')
  await takeHostKeys(file, pair.kept.text)
  assert.equal(readFileSync(file, 'utf8'), taken, 'cut off and done again it is the same')
  // Back with an old token: what it is known by stays beside.
  await takeHostKeys(file, pair.otherPem)
  assert.deepEqual(new Set(pemsOf(readFileSync(file, 'utf8'))), new Set(pemsOf(taken)))
})
