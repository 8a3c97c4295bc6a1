import assert from 'node:assert/strict'
import { test } from 'node:test'
import { makePrivateJwk } from '../../control-plane/auth/signing-keys.ts'
import { type CommandContext, judgeCommand } from '../../node-agent/control/commands.ts'
import type { Command } from '../../shared/contract/documents.ts'
import { type DocumentType, documentSigner } from '../../shared/contract/signing.ts'

const key = await makePrivateJwk()
const stranger = await makePrivateJwk()
const signer = await documentSigner('cp', key)
const nowMs = 1_800_000_000_000
const id = (letter: string): string => letter.repeat(26)

const good: Command = {
  v: 1,
  organisation: id('1'),
  audience: id('2'),
  pair: id('3'),
  operation: id('4'),
  jti: id('5'),
  verb: 'switchover',
  args: {},
  issuedAt: nowMs / 1000,
  expiresAt: nowMs / 1000 + 60,
  only: { gen: 1, epoch: 4, node: 'a' },
  actor: 'somebody',
}
const context: CommandContext = {
  host: id('2'),
  organisation: id('1'),
  ring: kid => (kid === 'cp' ? key.x : null),
  nowMs,
  present: { gen: 1, epoch: 4, node: 'a' },
  policy: { refuse: [] },
  tooling: null,
}

async function judged(
  change: Partial<Command> = {},
  around: Partial<CommandContext> = {},
  type: DocumentType = 'command',
) {
  return judgeCommand(await signer.sign(type, { ...good, ...change }), { ...context, ...around })
}

test('a command that is signed, in time, for this host and for this epoch runs', async () => {
  assert.equal((await judged()).verdict, 'run')
})

test('a command of an earlier epoch, of another generation, or for the other place is refused: a late or replayed one demotes nobody', async () => {
  for (const present of [
    { gen: 1, epoch: 5, node: 'a' },
    { gen: 2, epoch: 4, node: 'a' },
    { gen: 1, epoch: 4, node: 'b' },
  ] as const) {
    const verdict = await judged({}, { present })
    assert.equal(verdict.verdict, 'refuse', JSON.stringify(present))
  }
  assert.equal((await judged({}, { present: null })).verdict, 'refuse')
})

test('a command that has ended, lives too long, or comes from the future is refused', async () => {
  assert.equal((await judged({}, { nowMs: nowMs + 61_000 })).verdict, 'refuse')
  assert.equal((await judged({ expiresAt: good.issuedAt + 3600 })).verdict, 'refuse')
  assert.equal((await judged({}, { nowMs: nowMs - 130_000 })).verdict, 'refuse')
})

test('what another key signed, or is another kind of document, or was altered, is not even answered', async () => {
  const other = await documentSigner('cp', stranger)
  assert.equal((await judgeCommand(await other.sign('command', good), context)).verdict, 'ignore')
  assert.equal((await judged({}, {}, 'desired')).verdict, 'ignore')
  const jws = JSON.parse(await signer.sign('command', good)) as { payload: string }
  const payload = Buffer.from(JSON.stringify({ ...good, only: {} })).toString('base64url')
  assert.equal((await judgeCommand(JSON.stringify({ ...jws, payload }), context)).verdict, 'ignore')
  for (const text of ['', 'null', '[]', '{"protected":1}', 'x'.repeat(10_000)])
    assert.equal((await judgeCommand(text, context)).verdict, 'ignore')
})

test('a command for another host is not answered', async () => {
  assert.equal((await judged({ audience: id('9') })).verdict, 'ignore')
  assert.equal((await judged({ organisation: id('9') })).verdict, 'ignore')
})

test('a verb that the local policy keeps for people at the host is refused, whoever signed it', async () => {
  const verdict = await judged({}, { policy: { refuse: ['switchover'] } })
  assert.ok(verdict.verdict === 'refuse' && /local policy/.test(verdict.why))
})

test('arguments that the verb does not know are refused', async () => {
  assert.equal((await judged({ args: { force: true } })).verdict, 'refuse')
})

test('a key of the organisation’s tooling opens its verbs on its pair, for the epoch it names, and nothing else', async () => {
  const tool = await makePrivateJwk()
  const tooling = {
    pair: id('3'),
    tools: [{ kid: 'tool-1', publicKey: tool.x, verbs: ['switchover', 'prechecks'] as ('switchover' | 'prechecks')[] }],
  }
  const byTool = await documentSigner('tool-1', tool)
  const judge = async (change: Partial<Command> = {}, around: Partial<CommandContext> = { tooling }) =>
    judgeCommand(await byTool.sign('command', { ...good, ...change }), { ...context, ...around })
  assert.equal((await judge()).verdict, 'run')
  assert.equal((await judge({ verb: 'prechecks', args: { peerAddresses: [], vips: [] }, only: {} })).verdict, 'run')
  const refused: [string, Partial<Command>][] = [
    ['a verb that the key may not', { verb: 'maintenance', args: { forMs: 1000 } }],
    ['a verb that no tooling may', { verb: 'takeover', args: { withWitness: false } }],
    ['another pair', { pair: id('6') }],
    ['no pair', { pair: null }],
    ['no epoch', { only: { gen: 1, node: 'a' } }],
    ['an epoch that is over', { only: { gen: 1, epoch: 3, node: 'a' } }],
  ]
  for (const [what, change] of refused) assert.equal((await judge(change)).verdict, 'refuse', what)
  // Revoked, which is: no longer in the desired document.
  assert.equal((await judge({}, { tooling: { ...tooling, tools: [] } })).verdict, 'ignore')
  assert.equal((await judge({}, { tooling: null })).verdict, 'ignore')
  // A key of tooling never takes the place of the control plane's own.
  const named = await documentSigner('cp', tool)
  const posing = { ...tooling, tools: [{ ...tooling.tools[0]!, kid: 'cp' }] }
  assert.equal(
    (await judgeCommand(await named.sign('command', good), { ...context, tooling: posing })).verdict,
    'ignore',
  )
})
