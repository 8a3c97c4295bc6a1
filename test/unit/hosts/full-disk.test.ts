import assert from 'node:assert/strict'
import { existsSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { applyChange, type ChangeParts } from '../../../node-agent/network/change.ts'
import { writeBootFiles } from '../../../node-agent/network/write-boot-files.ts'
import type { Vswitch } from '../../../shared/hosts/network.ts'

const vswitch = (name: string): Vswitch => ({
  name,
  backend: 'bridge',
  description: '',
  types: ['service'],
  vlan: null,
  nics: [],
  bond: null,
  addresses: [],
  gateways: [],
  mtu: 1500,
})

const partsIn = (folder: string): ChangeParts => ({
  folder,
  boot: 'this-boot',
  run: async () => null,
  reach: async () => ({ peer: true, witness: true, controlPlane: null }),
  sleep: async () => {},
  begun: () => {},
  confirmMs: 30_000,
})

test('boot files of a change that a full disk ended are taken back without room', async () => {
  const root = mkdtempSync(join(tmpdir(), 'understudy-full-'))
  try {
    const [before, after] = [[vswitch('svc0')], [vswitch('svc0'), vswitch('svc1')]]
    const write = (record: readonly Vswitch[]): Promise<void> =>
      writeBootFiles({ root, manager: 'systemd-networkd' }, record)
    const fileOf = (name: string): string => join(root, 'etc/systemd/network', name)
    await write(before)
    const result = await applyChange(partsIn(join(root, 'state')), {
      why: 'vSwitch svc1 is made',
      steps: [],
      record: before,
      remember: async which => {
        if (which === 'before') return write(before)
        await write(after)
        // A file that can't be written from here on.
        mkdirSync(fileOf('70-understudy-svc0.netdev.tmp'))
        throw new Error('ENOSPC: no space left on device')
      },
    })
    assert.ok(existsSync(fileOf('70-understudy-svc0.netdev')))
    assert.ok(!existsSync(fileOf('70-understudy-svc1.netdev')), 'the next boot does not make what was refused')
    assert.match(result.why, /no space left.*; the host is as it was/)
  } finally {
    rmSync(root, { recursive: true, force: true })
  }
})

test('a change whose boot files can’t be put back either does not say that the host is as it was', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'understudy-full-'))
  try {
    const remember = async (): Promise<void> => {
      throw new Error('ENOSPC: no space left on device')
    }
    const result = await applyChange(partsIn(folder), { why: 'a test', steps: [], record: [], remember })
    assert.ok(!result.ok && !result.undone)
    assert.match(result.why, /taking it back failed at the files for the next boot: ENOSPC.*look at the host/)
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
})
