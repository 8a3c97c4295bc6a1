/**
 * Virtual addresses on a vSwitch of their own, put up and taken away by an operator at the hosts while clients write: they
 * follow the primary behind the same gate as the first one, in both families.
 */

import assert from 'node:assert/strict'
import { X509Certificate } from 'node:crypto'
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { isDeepStrictEqual } from 'node:util'
import { HOSTS, type HostName, INTERFACE, namespaceName } from '../../infra/lab/addresses.ts'
import { groupPath, processesIn } from '../../infra/lab/control-groups.ts'
import { run } from '../../infra/lab/exec.ts'
import { networkOf } from '../../infra/lab/hosts.ts'
import { databaseUriAt, statuses, switchOver, until, untilProtected } from '../../infra/lab/pair.ts'
import { commandLine, signal } from '../../infra/lab/processes.ts'
import { agentPaths } from '../../infra/lab/product.ts'
import { exec } from '../../node-agent/exec.ts'
import type { Compared } from '../../node-agent/inventory/compared.ts'
import type { CheckReport } from '../../node-agent/report/check-report.ts'
import { otherNode } from '../../shared/protocol/nodes.ts'
import { networkState } from '../integration/support/network-state.ts'
import { ask, pairUnderLoad, settle, understudyOn } from './support.ts'

const { pair } = pairUnderLoad('svc')

const vSwitch = 'svc0'
const own = { a: ['10.78.0.1/24', 'fd78::1/64'], b: ['10.78.0.2/24', 'fd78::2/64'], c: ['10.78.0.9/24', 'fd78::9/64'] }
const addresses = ['10.78.0.100', 'fd78::100']
const withLength = (address: string): string => `${address}/${address.includes(':') ? 64 : 24}`
/** A look at the host's networks, a question to the other one, and a busy machine. */
const knownLimitMs = 60_000

const ip = (member: HostName | 'c', ...words: string[]): Promise<string> =>
  run('ip', ['-n', namespaceName(pair().lab, member), ...words])

/** A bridge on each host and one at the client's, joined by a cable each. */
async function makeSegment(): Promise<void> {
  await ip('c', 'link', 'add', vSwitch, 'type', 'bridge')
  for (const host of HOSTS) {
    const namespace = namespaceName(pair().lab, host)
    await ip('c', 'link', 'add', `svc-${host}`, 'type', 'veth', 'peer', 'name', 'svc-nic', 'netns', namespace)
    await ip('c', 'link', 'set', `svc-${host}`, 'master', vSwitch, 'up')
    await ip(host, 'link', 'add', vSwitch, 'type', 'bridge')
    await ip(host, 'link', 'set', 'svc-nic', 'master', vSwitch, 'up')
  }
  for (const member of [...HOSTS, 'c'] as const) {
    await ip(member, 'link', 'set', vSwitch, 'up')
    for (const address of own[member])
      await ip(member, 'address', 'add', address, 'dev', vSwitch, ...(address.includes(':') ? ['nodad'] : []))
  }
}

const understudy = (host: HostName, ...words: string[]) =>
  understudyOn(pair(), host, [...words, '--config', agentPaths(pair().lab, host).config])
const answerOf = async <T>(host: HostName, verb: string): Promise<T | null> =>
  ((await ask(pair().lab, host, verb)) as { result?: T } | null)?.result ?? null

const heldBy = async (host: HostName): Promise<string[]> => {
  const shown = await ip(host, '-brief', 'address', 'show', 'dev', vSwitch)
  return addresses.filter(address => shown.includes(` ${address}/`))
}
async function answers(address: string): Promise<string> {
  const [program, args] = networkOf(pair().lab, 'c', ['psql', databaseUriAt(pair().lab, address), '-tAc', 'select 42'])
  return (await run(program, args)).trim()
}

test('a virtual address outside of the segment of the hosts is refused with what both have there, and nothing is changed', async () => {
  await makeSegment()
  const primary = await untilProtected(pair().lab)
  await until(knownLimitMs, 'the hosts do not know each other’s networks', async () => {
    const seen = await answerOf<Compared>(primary, 'hosts')
    return seen?.theirs?.networks.some(one => one.name === vSwitch) === true && seen.own !== null ? true : null
  })
  const { config } = agentPaths(pair().lab, primary)
  const was = readFileSync(config, 'utf8')
  const other = own[otherNode(primary)][0]
  for (const address of ['10.79.0.100/24', '10.78.0.100/25', other!]) {
    const refused = await understudy(primary, 'vip', 'add', address, '--on', vSwitch)
    assert.equal(refused.exitCode, 3, refused.output)
  }
  const [far] = [await understudy(primary, 'vip', 'add', 'fd79::100/64', '--on', vSwitch)]
  assert.match(far.output, /vips\[2\]|lies in no subnet/)
  assert.equal(readFileSync(config, 'utf8'), was)
})

test('addresses of both families are added while clients write, on the backup first, and clients are answered through them', async () => {
  const primary = await untilProtected(pair().lab)
  const { epoch } = await pair().present(primary)
  for (const host of [otherNode(primary), primary]) {
    for (const address of addresses) {
      const added = await understudy(host, 'vip', 'add', withLength(address), '--on', vSwitch)
      assert.equal(added.exitCode, 0, added.output)
    }
    await untilProtected(pair().lab)
  }
  assert.deepEqual(await heldBy(primary), addresses)
  assert.deepEqual(await heldBy(otherNode(primary)), [])
  for (const address of addresses) assert.equal(await answers(address), '42')
  const status = await pair().present(primary)
  assert.deepEqual([status.serving, status.epoch], [true, epoch], 'nobody lost his office by it')
})

test('they follow the service to the other host, and back', async () => {
  const first = await untilProtected(pair().lab)
  for (const from of [first, otherNode(first)]) {
    await switchOver(pair().lab, from)
    assert.equal(await untilProtected(pair().lab), otherNode(from))
    assert.deepEqual([await heldBy(otherNode(from)), await heldBy(from)], [addresses, []])
    for (const address of addresses) assert.equal(await answers(address), '42')
  }
})

test('an address that the other host does not know is an obstacle of check and an alarm, until it does', async () => {
  const primary = await untilProtected(pair().lab)
  const backup = otherNode(primary)
  const path = agentPaths(pair().lab, backup).config
  const file = JSON.parse(readFileSync(path, 'utf8')) as { vips: { address: string }[] }
  // As an operator edits it.
  writeFileSync(
    path,
    JSON.stringify({ ...file, vips: file.vips.filter(one => one.address !== withLength(addresses[0]!)) }),
  )
  const reloaded = await understudy(backup, 'reload')
  assert.equal(reloaded.exitCode, 0, reloaded.output)
  const why = new RegExp(`${addresses[0]}/24 is in the configuration of ${primary} and not of ${backup}`)
  const check = await until(knownLimitMs, 'the difference is not seen', async () => {
    const seen = await answerOf<CheckReport>(primary, 'check')
    return seen?.blocking.some(one => why.test(one)) ? seen : null
  })
  assert.equal(check.takeover, false)
  // Raised when the agent looks around next.
  await until(knownLimitMs, 'the alarm is not raised', async () =>
    (await statuses(pair().lab))[primary]?.alarms.some(one => why.test(one)) ? true : null,
  )
  writeFileSync(path, JSON.stringify(file))
  assert.equal((await understudy(backup, 'reload')).exitCode, 0)
  await until(knownLimitMs, 'the pair is not ready again', async () =>
    (await answerOf<CheckReport>(primary, 'check'))?.takeover === true ? true : null,
  )
})

test('both hosts get new certificates while clients write, and a standby that connects anew is let in by them', async () => {
  const primary = await untilProtected(pair().lab)
  const backup = otherNode(primary)
  const certificateOf = (host: HostName): X509Certificate =>
    new X509Certificate(readFileSync(join(agentPaths(pair().lab, host).stateDir, 'postgres/server.crt')))
  const shown = (host: HostName): string => certificateOf(host).fingerprint256
  const before = { a: shown('a'), b: shown('b') }
  for (const host of [backup, primary]) {
    const changed = await understudy(host, 'change', 'certificate')
    assert.equal(changed.exitCode, 0, changed.output)
    assert.notEqual(shown(host), before[host])
    const ends = new Date(certificateOf(host).validTo).toISOString()
    await until(knownLimitMs, `${host} does not say when its certificates end`, async () => {
      const [own, authority] = (await statuses(pair().lab))[host]?.certificates ?? []
      return own?.ends === ends && authority?.of === 'authority' ? true : null
    })
  }
  // It streams, so there is a receiver.
  await untilProtected(pair().lab)
  await pair().inject({ kind: 'kill', host: backup, what: 'walreceiver' })
  await untilProtected(pair().lab)
})

test('a change of the networks whose process and whose caller are both killed is taken back by whoever looks at the host next', async () => {
  const { lab } = pair()
  const host = await untilProtected(lab)
  const fromId = pair().newestDecision(host)
  const state = () =>
    networkState(argv => exec(['ip', 'netns', 'exec', namespaceName(lab, host), ...argv], { limitMs: 10_000 }))
  const before = await state()
  const running = (word: string): number[] =>
    processesIn(groupPath(lab, host)).filter(pid => commandLine(pid).includes(word))
  const words = ['vswitch', 'set', 'left0', '--types', 'storage', '--addresses', '10.99.1.1/24']
  const asked = understudy(host, ...words).catch(() => null)
  const journal = join(agentPaths(lab, host).stateDir, 'network', 'network-change.json')
  // It stands still while it is looked at, so that it can't come to its end meanwhile.
  await until(knownLimitMs, 'nothing is changed', async () => {
    const change = existsSync(journal) ? running('network-change') : []
    signal(change, 'SIGSTOP')
    if (change.length > 0 && !isDeepStrictEqual(await state(), before)) return true
    signal(change, 'SIGCONT')
    await sleep(20)
    return null
  })
  // The caller first: it would take the change back.
  assert.ok(signal(running('vswitch'), 'SIGKILL').length > 0)
  assert.equal(signal(running('network-change'), 'SIGKILL').length, 1)
  await asked
  await until(knownLimitMs, 'nobody takes it back', async () =>
    isDeepStrictEqual(await state(), before) && !existsSync(journal) ? true : null,
  )
  await until(knownLimitMs, 'nobody says so', async () =>
    pair()
      .decisions(host, fromId)
      .some(({ why }) => /vSwitch left0 is made" was under way when its process ended: it was taken back/.test(why))
      ? true
      : null,
  )
  await untilProtected(lab)
})

test('they are taken away again, from the primary first, and are on no host then; no write was lost', async () => {
  const primary = await untilProtected(pair().lab)
  for (const host of [primary, otherNode(primary)]) {
    for (const address of addresses) {
      const removed = await understudy(host, 'vip', 'remove', withLength(address))
      assert.equal(removed.exitCode, 0, removed.output)
    }
    await untilProtected(pair().lab)
  }
  for (const host of HOSTS) assert.deepEqual(await heldBy(host), [])
  const listed = await understudy(primary, 'vip', 'list')
  assert.match(listed.output, new RegExp(`on ${INTERFACE.lan}: here`))
  await settle(pair())
})
