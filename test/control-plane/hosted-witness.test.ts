import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { enrolmentKeyOf } from '../../node-agent/keys/enrolment-key.ts'
import { admitPair } from '../../node-agent/witness/admission.ts'
import { WitnessClient } from '../../node-agent/witness/client.ts'
import { trustOf, type WitnessAddress } from '../../node-agent/witness/connection.ts'
import { desiredDocument } from '../../shared/contract/api/settings.ts'
import type { RegisterReply, RegisterRequest } from '../../shared/protocol/types.ts'
import type { TestHost } from './support/host.ts'
import { adoptedPair } from './support/pair.ts'
import { type NodeRuntime, nodeRuntime } from './support/runtime.ts'

/** The agent's own way to a hosted witness, against the control plane as it comes: plain HTTP, and a listener for votes. */
let runtime: NodeRuntime
before(async () => {
  runtime = await nodeRuntime()
})
after(() => runtime?.close())

/** As the host reads it in its signed wish. */
async function addressFor(host: TestHost): Promise<WitnessAddress> {
  const pulled = await host.cloud.pull()
  assert.ok(pulled.ok && pulled.value?.desired)
  const { payload } = JSON.parse(pulled.value.desired) as { payload: string }
  const wish = desiredDocument.parse(JSON.parse(Buffer.from(payload, 'base64url').toString()))
  assert.ok(wish.pair?.hostedWitness)
  return { url: wish.pair.hostedWitness.url, trust: trustOf(wish.pair.hostedWitness) }
}

async function admitted() {
  const { a, b } = await adoptedPair(runtime)
  const address = await addressFor(a)
  const own = await enrolmentKeyOf(a.identity.key)
  const caller = { address, pair: 'orders', host: 'a' as const, signingKey: own.signingKey }
  const keys = { a: own.publicKey, b: b.identity.key.x }
  const request = { nonce: crypto.randomUUID().replaceAll('-', ''), replaces: null, keys }
  const answer = await admitPair(caller, { request, enrolmentToken: null })
  assert.ok(answer.ok, JSON.stringify(answer))
  return { address, signingKey: own.signingKey, inc: answer.reply.inc }
}

/** What comes of one request: an answer, a refusal to vote, or a failure. */
function asked(
  part: { address: WitnessAddress; signingKey: Awaited<ReturnType<typeof enrolmentKeyOf>>['signingKey'] },
  request: RegisterRequest,
): Promise<RegisterReply | string> {
  return new Promise(resolve => {
    const end = (what: RegisterReply | string): void => {
      resolve(what)
      client.close()
    }
    const client = new WitnessClient({
      ...part,
      pair: 'orders',
      host: 'a',
      now: () => performance.now(),
      repeatAfterMs: { min: 1_000, max: 5_000 },
      limitMs: 20_000,
      onReply: end,
      onNoVote: ({ why }) => end(why),
      onFailed: end,
    })
    client.send(request)
  })
}

test('an agent admits and asks the hosted witness at the address of its signed wish, with the key of its enrolment', async () => {
  const { inc, ...part } = await admitted()
  const value = {
    gen: 1,
    version: 2,
    epoch: 1,
    primary: 'a' as const,
    successor: false,
    voters: { a: 'inc-a', w: inc },
  }
  const accepted = await asked(part, { kind: 'accept', req: 1, inc, ballot: 5, value })
  assert.deepEqual(accepted, { kind: 'accepted', req: 1, inc, ballot: 5 })
  const read = await asked(part, { kind: 'read', req: 2, inc })
  assert.deepEqual(read, { kind: 'state', req: 2, inc, promised: 5, acc: { ballot: 5, value } })
})

test('whoever sits between with another certificate gets no request, and a stranger’s key no vote', async () => {
  const { inc, address, signingKey } = await admitted()
  const trust = trustOf({ fingerprint: 'ab'.repeat(32) })
  const between = await asked({ address: { ...address, trust }, signingKey }, { kind: 'read', req: 1, inc })
  assert.match(String(between), /another witness, or somebody in between/)
  const { a: stranger } = await adoptedPair(runtime)
  const other = await enrolmentKeyOf(stranger.identity.key)
  const refused = await asked({ address, signingKey: other.signingKey }, { kind: 'read', req: 2, inc })
  assert.match(String(refused), /no valid signature of a host of pair orders/)
})

test('the listener for votes answers nothing else of the API', async () => {
  const { address, signingKey } = await admitted()
  const origin = new URL(address.url).origin
  const caller = { address: { ...address, url: `${origin}/v1` }, pair: 'orders', host: 'a' as const, signingKey }
  const request = { nonce: crypto.randomUUID().replaceAll('-', ''), replaces: null, keys: { a: 'x'.repeat(43) } }
  const answer = await admitPair(caller, { request, enrolmentToken: null })
  assert.ok(!answer.ok)
  assert.match(answer.why, /no answer of a witness \(status 404\)/)
})
