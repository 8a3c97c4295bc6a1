import assert from 'node:assert/strict'
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { type Config, parseConfig, type WitnessPlace } from '../../node-agent/config.ts'
import { type HostKey, hostKeyOf, makeHostKeyPem, writeHostKey } from '../../node-agent/keys/host-key.ts'
import { askOnce, retirePair } from '../../node-agent/witness/admission.ts'
import { type Admission, admittedOf, admittedWitnesses, forgetAdmission } from '../../node-agent/witness/places.ts'
import type { RunningWitness } from '../../node-agent/witness-server/main.ts'
import { ballot, callerOf, valueWith, witnessIn } from '../fixtures/witness.ts'
import { exampleConfig } from './example-config.ts'

/** Two witnesses as they run, and one host of a pair that changes from the one to the other. */
let folder: string
let own: HostKey
let other: HostKey
const running: RunningWitness[] = []
const at = (which: number): WitnessPlace => ({
  url: `https://127.0.0.1:${running[which]!.port}`,
  fingerprint: running[which]!.identity.fingerprint,
  hosted: false,
})

before(async () => {
  folder = mkdtempSync(join(tmpdir(), 'understudy-places-'))
  const pem = makeHostKeyPem()
  await writeHostKey(join(folder, 'host.key'), pem)
  own = await hostKeyOf(pem)
  other = await hostKeyOf(makeHostKeyPem())
  for (const name of ['w1', 'w2']) {
    mkdirSync(join(folder, name))
    running.push(await witnessIn(join(folder, name)))
  }
})
after(async () => {
  for (const witness of running) await witness.close()
  rmSync(folder, { recursive: true, force: true })
})

const hostWith = (witness: object | null): Config =>
  parseConfig(
    JSON.stringify({ ...exampleConfig, stateDir: folder, hostKeyFile: join(folder, 'host.key'), witness }),
    'agent.json',
  )
const by = (config: Config, part: Partial<Admission> & { of?: number } = {}): Admission => ({
  config,
  inUse: 'first',
  taken: [],
  otherKey: () => other.publicKey,
  enrolmentToken: () => running[part.of ?? 0]!.identity.enrolmentToken,
  ...part,
})
const wanted = (first: WitnessPlace, part: { alternate?: WitnessPlace; anew?: string } = {}) => ({
  first,
  alternate: part.alternate ?? null,
  awayS: 600,
  anew: part.anew ?? null,
})

test('a witness that does not know the pair admits it by its token; asked again before the change is done it is the same', async () => {
  const config = hostWith(null)
  await assert.rejects(
    admittedWitnesses(wanted(at(0)), by(config, { enrolmentToken: () => null })),
    /does not admit pair orders: .*the enrolment token is missing or wrong/,
  )
  const first = await admittedWitnesses(wanted(at(0)), by(config))
  const again = await admittedWitnesses(wanted(at(0)), by(config))
  assert.deepEqual(again, first)
  assert.equal(first.former, null)
})

test('the one before stays to be asked until the pair has let it go, and the second host takes what the first was given', async () => {
  const present = await admittedWitnesses(wanted(at(0)), by(hostWith(null)))
  await forgetAdmission(folder)
  const config = hostWith(present)
  const next = await admittedWitnesses(wanted(at(1)), by(config, { of: 1 }))
  assert.deepEqual(next.former, admittedOf(config)[0])
  const second = await admittedWitnesses(
    wanted(at(1)),
    by(config, { taken: admittedOf(hostWith(next)), enrolmentToken: () => assert.fail('it asks for no admission') }),
  )
  assert.equal(second.inc, next.inc)
})

test('the one before, named again while it still may be the witness, keeps its incarnation; once ended it gives another', async () => {
  await forgetAdmission(folder)
  const present = await admittedWitnesses(wanted(at(0), { anew: 'first' }), by(hostWith(null)))
  await forgetAdmission(folder)
  const next = await admittedWitnesses(wanted(at(1)), by(hostWith(present), { of: 1 }))
  const back = await admittedWitnesses(wanted(at(0)), by(hostWith(next)))
  assert.deepEqual([back.inc, back.former?.inc], [present.inc, next.inc])
  await retirePair(callerOf(running[0]!, { pair: 'orders', key: own }), { inc: present.inc! })
  const anew = await admittedWitnesses(wanted(at(0)), by(hostWith(next)))
  assert.notEqual(anew.inc, present.inc)
})

test('the witness in place keeps its incarnation; one that was ended, or is wanted anew, gives another', async () => {
  const present = await admittedWitnesses(wanted(at(0), { anew: 'begin' }), by(hostWith(null)))
  const config = hostWith(present)
  assert.equal((await admittedWitnesses(wanted(at(0)), by(config))).inc, present.inc)
  const anew = await admittedWitnesses(wanted(at(0), { anew: 'asked' }), by(config))
  assert.notEqual(anew.inc, present.inc)
  assert.equal(anew.former?.inc, present.inc)
  const caller = callerOf(running[0]!, { pair: 'orders', key: own })
  const old = await askOnce(caller, { kind: 'read', req: 1, inc: present.inc! })
  assert.ok(old.ok && old.reply.kind === 'none' && old.reply.standing === 'void')
  // It forgot its votes, so it may never vote under the name that it had.
  const value = valueWith(present.inc!)
  const vote = await askOnce(caller, { kind: 'accept', req: 2, inc: present.inc!, ballot: ballot(9), value })
  assert.ok(vote.ok && vote.reply.kind === 'none')
  await retirePair(caller, { inc: anew.inc! })
  const after = await admittedWitnesses(wanted(at(0)), by(hostWith(anew)))
  assert.ok(![anew.inc, present.inc].includes(after.inc))
})

test('an alternate at the place of the witness itself, and a witness that is not reached, are refused', async () => {
  const config = hostWith(null)
  await assert.rejects(admittedWitnesses(wanted(at(0), { alternate: at(0) }), by(config)), /the witness itself/)
  const nowhere = { ...at(0), url: 'https://127.0.0.1:9' }
  await assert.rejects(admittedWitnesses(wanted(nowhere), by(config)), /does not admit pair orders/)
  const stranger = { ...at(0), fingerprint: 'ab'.repeat(32) }
  await assert.rejects(admittedWitnesses(wanted(stranger), by(config)), /this is another witness/)
})
