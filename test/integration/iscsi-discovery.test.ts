import assert from 'node:assert/strict'
import { mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { discover, parseIscsiLs } from '../../node-agent/storage/discovery.ts'
import { until } from '../fixtures/until.ts'
import { Netns } from './support/netns.ts'

/** A real iSCSI target (tgt), in a namespace of its own, asked with libiscsi as a host without the kernel's module does. */
const folder = mkdtempSync(join(tmpdir(), 'understudy-iscsi-'))
const name = 'iqn.2026-01.example.store:data'
let target: Netns

before(async () => {
  target = new Netns('un-iscsi')
  const disk = join(folder, 'disk')
  writeFileSync(disk, '')
  truncateSync(disk, 16 * 2 ** 20)
  const control = ['--control-port', '0']
  target.spawn('tgtd', ['-f', ...control, '--iscsi', 'portal=127.0.0.1:3260'], { stdio: 'ignore' })
  const tgtadm = (...words: string[]): boolean => target.succeeds('tgtadm', ...control, '--lld', 'iscsi', ...words)
  await until(() => tgtadm('--mode', 'sys', '--op', 'show'))
  assert.ok(tgtadm('--mode', 'target', '--op', 'new', '--tid', '1', '--targetname', name))
  assert.ok(tgtadm('--mode', 'logicalunit', '--op', 'new', '--tid', '1', '--lun', '1', '--backing-store', disk))
  assert.ok(tgtadm('--mode', 'target', '--op', 'bind', '--tid', '1', '--initiator-address', 'ALL'))
})
after(async () => {
  await target.remove()
  rmSync(folder, { recursive: true, force: true })
})

test('a portal tells its targets', () => {
  assert.deepEqual(parseIscsiLs(target.exec('iscsi-ls', 'iscsi://127.0.0.1:3260')), [
    { portal: '127.0.0.1:3260', name },
  ])
})

test('a portal that nobody serves is told with what each way of asking said', async () => {
  const result = await discover('127.0.0.1:3')
  assert.match(result.ok ? '' : result.why, /the portal 127\.0\.0\.1:3 was not read/)
})

test('a portal that is no address is refused with the rule, and nothing is asked', async () => {
  const result = await discover('storage.example')
  assert.match(result.ok ? '' : result.why, /portal is "storage\.example" and must be an IPv4 or IPv6 address/)
})
