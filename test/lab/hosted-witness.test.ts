/** A pair without a witness of its own: set up through the API, its third vote lies in the control plane's database. */

import assert from 'node:assert/strict'
import { X509Certificate } from 'node:crypto'
import { appendFileSync, mkdirSync, readFileSync, rmSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { addressOf, HOSTS, type HostName, INTERFACE, LAN_PREFIX, VIP } from '../../infra/lab/addresses.ts'
import {
  controlPlaneDir,
  enrolHost,
  killControlPlane,
  startControlPlane,
  untilConnected,
} from '../../infra/lab/control-plane.ts'
import { run } from '../../infra/lab/exec.ts'
import { inject } from '../../infra/lab/faults.ts'
import { hostPaths, runOnHost } from '../../infra/lab/hosts.ts'
import { down } from '../../infra/lab/lab.ts'
import { withLabState } from '../../infra/lab/lab-state.ts'
import { bootHost } from '../../infra/lab/machine.ts'
import {
  lastWords,
  queryHost,
  startAgent,
  statuses,
  switchOver,
  until,
  untilProtected,
  untilServing,
} from '../../infra/lab/pair.ts'
import { agentPaths, understudyCommand, writeWaitingConfig } from '../../infra/lab/product.ts'
import { type RemotePair, untilEnded, upThroughApi } from '../../infra/lab/remote-set-up.ts'
import { Trial } from '../../infra/lab/trial.ts'
import { certificatesOf } from '../../node-agent/keys/certificates.ts'
import { otherNode } from '../../shared/protocol/nodes.ts'
import { ask, presentStatus, runBundle } from './support.ts'

const lab = `t-hw-${process.pid}`.slice(0, 16)
/** Each lab host's own, by the same path. */
const tree = '/srv/data'
/** A rejoin by rewind, and hold-downs on a busy machine. */
const PROTECTED_LIMIT_MS = 90_000
/** The control plane waits for three heartbeats; the rest is for a busy machine. */
const SILENT_LIMIT_MS = 60_000
/** Which host burns down: the one that began the pair, whose secrets the other one has from it. */
const lost = 'a'
const left = 'b'
const files = { f: 'acknowledged', g: 'later' }
let remote: RemotePair
let trial: Trial

before(async () => {
  await runBundle()
  try {
    const settings = {
      arbitration: { witness: { kind: 'hosted' } },
      syncPartition: { path: tree, sizeGb: 1 },
    } as const
    remote = await upThroughApi(lab, { settings })
  } catch (error) {
    console.error(lastWords(lab, 30))
    await down(lab)
    throw error
  }
  trial = await Trial.begin(lab, { writer: { connections: 2, intervalMs: 40 } })
})
after(() => down(lab))

test('two hosts are set up through the API with the hosted witness, and both reach it', async () => {
  assert.equal(remote.setUp.state, 'succeeded', remote.setUp.message)
  await untilProtected(lab)
  for (const host of HOSTS) {
    const { witness } = await presentStatus(lab, host)
    assert.match(witness?.url ?? '', /^https:\/\/.*\/witness\/v1\/[0-9a-z]{26}$/)
    // A backup asks it now and then.
    await until(60_000, `${host} does not reach it`, async () =>
      (await presentStatus(lab, host)).witness?.reach === 'yes' ? true : null,
    )
  }
})

const understudy = (host: HostName, words: readonly string[]): Promise<string> =>
  runOnHost(lab, host, understudyCommand([...words, '--socket', agentPaths(lab, host).socket]))

test('the partition that was wished through the API is made on both hosts, and what a barrier acknowledged is on both', async () => {
  const primary = await untilProtected(lab)
  for (const host of HOSTS) {
    assert.match(await runOnHost(lab, host, ['findmnt', '-no', 'FSTYPE,SIZE', tree]), /^ext4 +9\d\d(\.\d)?M/)
  }
  await runOnHost(lab, primary, ['sh', '-c', `umask 077; mkdir ${tree}/d; echo acknowledged > ${tree}/d/f`])
  assert.match(await understudy(primary, ['sync', 'wait']), /^what was written before is durable on the backup \(/)
  assert.equal(await runOnHost(lab, otherNode(primary), ['cat', `${tree}/d/f`]), 'acknowledged\n')
  await until(60_000, 'the tree is not said to be in sync', async () =>
    /^data {2}\/srv\/data {2}in sync$/m.test(await understudy(primary, ['sync', 'status'])) ? true : null,
  )
})

/** @returns the operation that shows how far the hosts are, at its end */
async function change(body: Parameters<typeof remote.plane.api.changeSettings>[0]['body']) {
  const { api } = remote.plane
  const params = { pair: remote.pair }
  const { etag } = await api.getPair({ params })
  const answer = await api.changeSettings({ params, body, ifMatch: etag! })
  return untilEnded(remote.plane, answer.headers.get('location')?.split('/').at(-1) ?? '', PROTECTED_LIMIT_MS)
}

test('witness and profile are changed through the API while clients write, and back; a host that cannot follow takes both back', async () => {
  const primary = await untilProtected(lab, PROTECTED_LIMIT_MS)
  const before = await presentStatus(lab, primary)
  const { witness: own } = remote
  const refused = await change({ arbitration: { witness: { ...own, fingerprint: 'ab'.repeat(32) } } })
  assert.equal(refused.state, 'failed')
  assert.match(refused.message, /this is another witness, or somebody in between/)
  assert.deepEqual((await presentStatus(lab, primary)).agent, before.agent, 'nobody began anew')
  const wishes = [
    { profile: 'conservative', arbitration: { witness: own, alternate: { kind: 'hosted' } } },
    { profile: 'default', arbitration: { witness: { kind: 'hosted' }, alternate: null } },
  ] as const
  for (const wish of wishes) {
    const done = await change(wish)
    assert.equal(done.state, 'succeeded', done.message)
    const { profile, arbitration } = wish
    await until(PROTECTED_LIMIT_MS, `the pair is not protected with ${JSON.stringify(wish)}`, async () => {
      const seen = await statuses(lab)
      const here = seen[primary]
      const isHosted = here?.witness?.url.includes('/witness/v1/') === true
      if (isHosted !== (arbitration.witness.kind === 'hosted')) return null
      if (HOSTS.some(host => seen[host]?.agent.profile !== profile)) return null
      return here?.protection === 'protected' && here.witness?.isMember ? true : null
    }).catch(async (error: Error) => {
      throw new Error(`${error.message} ${JSON.stringify(await statuses(lab))}\n${lastWords(lab, 30)}`)
    })
  }
  const after = await presentStatus(lab, primary)
  assert.deepEqual([after.serving, after.epoch], [true, before.epoch])
})

test('both hosts and the virtual address change to IPv6 while clients write, and back: the hosts talk by old and new addresses meanwhile', async () => {
  let primary = await untilProtected(lab, PROTECTED_LIMIT_MS)
  let { epoch } = await presentStatus(lab, primary)
  const { body: before } = await remote.plane.api.getPair({ params: { pair: remote.pair } })
  const { ipFamily, hosts, vips = [] } = before.settings
  const six = (host: HostName) => ({ addresses: (['lan', 'peer'] as const).map(link => addressOf(host, link).v6) })
  const gone = {
    a: { addresses: [addressOf('a').v4, '10.77.9.1'] },
    b: { addresses: [addressOf('b').v4, '10.77.9.2'] },
  }
  const refused = await change({ hosts: gone })
  assert.match(refused.message, /hosts\.[ab]\.addresses has 10\.77\.9\.[12], and no interface of this host has/)
  const wishes = [
    {
      ipFamily: 'ipv6',
      hosts: { a: six('a'), b: six('b') },
      vips: [
        { address: `${VIP.v6}/${LAN_PREFIX.v6}`, interface: INTERFACE.lan },
        ...vips.map(vip => ({ ...vip, network: 'service' as const })),
      ],
    },
    { ipFamily, hosts, vips },
  ] as const
  for (const wish of wishes) {
    const done = await change({ ...wish, vips: [...wish.vips] })
    assert.equal(done.state, 'succeeded', done.message)
    for (const host of HOSTS) {
      const { result } = (await ask(lab, host, 'configuration')) as { result: { peer: { paths: { local: string }[] } } }
      assert.deepEqual(
        result.peer.paths.map(path => path.local),
        wish.hosts[host].addresses,
      )
    }
    assert.equal(await untilProtected(lab, PROTECTED_LIMIT_MS), primary)
    assert.equal((await presentStatus(lab, primary)).epoch, epoch)
    if (wish.ipFamily !== 'ipv6') continue
    // The old primary follows the new one, whose database it asks by these addresses.
    await switchOver(lab, primary)
    primary = otherNode(primary)
    assert.equal(await untilProtected(lab, PROTECTED_LIMIT_MS), primary)
    epoch = (await presentStatus(lab, primary)).epoch
  }
})

test('key, authority and certificates of the pair are changed through the API while clients write, on one host after the other', async () => {
  const primary = await untilProtected(lab, PROTECTED_LIMIT_MS)
  const epoch = (await presentStatus(lab, primary)).epoch
  const held = (host: HostName) => {
    const { stateDir } = agentPaths(lab, host)
    const certificate = new X509Certificate(readFileSync(join(stateDir, 'postgres/server.crt'))).fingerprint256
    const authority = readFileSync(join(stateDir, 'tls/authority.pem'), 'utf8')
    return { key: readFileSync(join(stateDir, 'pair.key'), 'utf8'), certificate, authority }
  }
  const before = { a: held('a'), b: held('b') }
  const { api } = remote.plane
  const begun = await api.changeKeys({ params: { pair: remote.pair }, body: { reason: 'a year is over' } })
  const done = await untilEnded(remote.plane, begun.body.id, PROTECTED_LIMIT_MS)
  assert.equal(done.state, 'succeeded', `${done.message}\n${lastWords(lab, 30)}`)
  assert.equal(await untilProtected(lab, PROTECTED_LIMIT_MS), primary)
  for (const host of HOSTS) {
    assert.notEqual(held(host).key, before[host].key)
    assert.notEqual(held(host).certificate, before[host].certificate)
    assert.notEqual(held(host).authority, before[host].authority)
  }
  assert.equal(held('a').authority, held('b').authority)
  assert.equal(certificatesOf(held('a').authority).length, 1, 'the one before is trusted no more')
  assert.equal(held('a').key, held('b').key)
  assert.equal(held('a').key.trim().split('\n').length, 1, 'the old one is gone')
  assert.equal((await presentStatus(lab, primary)).epoch, epoch)
  // What stood is not cut by it; what begins anew has to be taken as well.
  const cut = 'select pg_terminate_backend(pid) from pg_stat_replication'
  await queryHost(lab, primary, { sql: cut })
  assert.equal(await untilProtected(lab, PROTECTED_LIMIT_MS), primary)
  await until(PROTECTED_LIMIT_MS, 'the files do not follow', async () =>
    /^data {2}\/srv\/data {2}in sync$/m.test(await understudy(primary, ['sync', 'status'])) ? true : null,
  )
})

test('the keys that the hosts enrolled with are changed through the API, on one host after the other, and the witness hears the new ones', async () => {
  const primary = await untilProtected(lab, PROTECTED_LIMIT_MS)
  const { epoch } = await presentStatus(lab, primary)
  const { api } = remote.plane
  /** Each start of an agent makes its socket anew. */
  const startOf = (node: HostName): number =>
    statSync(agentPaths(lab, node).socket, { throwIfNoEntry: false })?.ctimeMs ?? 0
  for (const node of HOSTS) {
    const params = { host: remote.hosts[node] }
    const { body: before } = await api.getHost({ params })
    const start = startOf(node)
    const begun = await api.changeHostKeys({ params, body: { reason: 'a year is over' } })
    const done = await untilEnded(remote.plane, begun.body.id, PROTECTED_LIMIT_MS)
    assert.equal(done.state, 'succeeded', `${done.message}\n${lastWords(lab, 30)}`)
    assert.notEqual((await api.getHost({ params })).body.publicKey, before.publicKey)
    // It is over before the agent goes on by a new start with them, which must not fall into what comes next.
    await until(
      PROTECTED_LIMIT_MS,
      `the agent of ${node} does not start anew`,
      async () => startOf(node) > start || null,
    )
  }
  await untilConnected(remote.plane, Object.values(remote.hosts))
  assert.equal(await untilProtected(lab, PROTECTED_LIMIT_MS), primary)
  assert.equal((await presentStatus(lab, primary)).epoch, epoch)
})

test('the control plane dies with its votes: the pair serves on; back again it is the witness as before', async () => {
  const primary = await untilProtected(lab, PROTECTED_LIMIT_MS)
  await killControlPlane(lab)
  await until(60_000, 'the loss of the witness is not shown', async () =>
    (await statuses(lab))[primary]?.witness?.reach === 'no' ? true : null,
  )
  assert.equal((await presentStatus(lab, primary)).serving, true, lastWords(lab, 60))
  remote.plane = await startControlPlane(lab)
  await untilConnected(remote.plane, Object.values(remote.hosts))
  assert.equal(await untilProtected(lab, PROTECTED_LIMIT_MS), primary)
})

test('a control plane whose database was restored has no vote: an alarm says so, and on request it admits the pair anew', async () => {
  const primary = await untilProtected(lab, PROTECTED_LIMIT_MS)
  const incOf = async (): Promise<string> => {
    const status = (await ask(lab, primary, 'configuration')) as { result: { witness: { inc: string | null } } }
    return status.result.witness.inc ?? 'of the set-up'
  }
  const before = await incOf()
  await killControlPlane(lab)
  // As after a restore from an archive: PostgreSQL goes on on a new timeline.
  const data = join(controlPlaneDir(lab), 'postgres', 'data')
  appendFileSync(join(data, 'postgresql.auto.conf'), "restore_command = '/bin/false'\n")
  await run('install', ['-o', 'postgres', '-m', '600', '/dev/null', join(data, 'recovery.signal')])
  remote.plane = await startControlPlane(lab)
  await untilConnected(remote.plane, Object.values(remote.hosts))
  await until(60_000, 'no alarm says that the vote is gone', async () => {
    const { body } = await remote.plane.api.listAlarms({ query: { state: 'raised' } })
    return body.data.some(one => one.kind === 'witness_void') ? true : null
  })
  assert.equal((await presentStatus(lab, primary)).serving, true)
  const begun = await remote.plane.api.admitWitness({
    params: { pair: remote.pair },
    body: { reason: 'restored' },
  })
  const done = await untilEnded(remote.plane, begun.body.id, PROTECTED_LIMIT_MS)
  assert.equal(done.state, 'succeeded', done.message)
  assert.equal(await untilProtected(lab, PROTECTED_LIMIT_MS), primary)
  assert.notEqual(await incOf(), before)
})

test('the primary burns down: the backup takes over by the vote of the witness that it was admitted to anew, with every acknowledged write', async () => {
  if ((await untilProtected(lab, PROTECTED_LIMIT_MS)) !== lost) await switchOver(lab, left)
  assert.equal(await untilProtected(lab, PROTECTED_LIMIT_MS), lost)
  // Over the addresses and with the keys that were changed meanwhile.
  await runOnHost(lab, lost, ['sh', '-c', `echo later > ${tree}/d/g`])
  await understudy(lost, ['sync', 'wait'])
  await inject(lab, { kind: 'power', host: lost })
  await untilServing(lab, left)
  for (const [name, text] of Object.entries(files))
    assert.equal(await runOnHost(lab, left, ['cat', `${tree}/d/${name}`]), `${text}\n`)
})

test('another machine takes the place of the lost host through the API, copies database and files, and has the witness’s vote', async () => {
  const { api } = remote.plane
  const replaces = remote.hosts[lost]
  const { stateDir, config } = agentPaths(lab, lost)
  const { control } = JSON.parse(readFileSync(config, 'utf8')) as { control: { witnessTokenFile: string } }
  rmSync(hostPaths(lab, lost).diskDir, { recursive: true })
  await withLabState(lab, async state => {
    await bootHost(state, lost)
    mkdirSync(stateDir, { recursive: true, mode: 0o711 })
    writeWaitingConfig(lab, lost, control)
    await startAgent(state, lost)
  })
  await until(SILENT_LIMIT_MS, 'The lost host is still heard', async () => {
    const { body } = await api.getHost({ params: { host: replaces } })
    return body.connected === 'yes' ? null : true
  })
  remote.hosts[lost] = await enrolHost(lab, lost, remote.plane, { replaces })
  await untilConnected(remote.plane, [remote.hosts[lost]])
  const begun = await api.replaceMember({ params: { pair: remote.pair }, body: { host: lost, reason: 'burnt down' } })
  const done = await untilEnded(remote.plane, begun.body.id, PROTECTED_LIMIT_MS)
  assert.equal(done.state, 'succeeded', `${done.message}\n${lastWords(lab, 30)}`)
  assert.equal(await untilProtected(lab, PROTECTED_LIMIT_MS), left)
  await until(PROTECTED_LIMIT_MS, 'The witness or the files are not there for the new host', async () => {
    if ((await presentStatus(lab, lost)).witness?.reach !== 'yes') return null
    return /in sync/.test(await understudy(left, ['sync', 'status'])) ? true : null
  })
  for (const [name, text] of Object.entries(files))
    assert.equal(await runOnHost(lab, lost, ['cat', `${tree}/d/${name}`]), `${text}\n`)
})

test('nothing that was acknowledged was lost, and no two hosts served at one instant', async () => {
  const { writes, judgement } = await trial.end()
  for (const host of ['a', 'b'] as const) assert.deepEqual(writes[host].lost, [])
  assert.deepEqual(judgement.violations, [])
})
