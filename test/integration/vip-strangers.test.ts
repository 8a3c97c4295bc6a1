import assert from 'node:assert/strict'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, beforeEach, describe, test } from 'node:test'
import { parseConfig } from '../../node-agent/config.ts'
import { VipDriver } from '../../node-agent/drivers/vip-port.ts'
import { bootMs } from '../../node-agent/kernel/clock.ts'
import { AnnouncementSender } from '../../node-agent/vip/announce.ts'
import { until } from '../fixtures/until.ts'
import { exampleConfig } from '../unit/example-config.ts'
import { whyNoNamespaces } from './support/netns.ts'
import { createPair, HOST4, type TestPair, VIP4, VIP6 } from './support/pair.ts'

/**
 * Row 37 of the fault matrix, for the drivers: an address that the configuration names for the first time is asked about
 * before it is claimed, one that a stranger takes meanwhile is told of, and neither keeps this host from serving.
 */
const STRANGER_MAC = '52:54:00:00:09:09'
const NEW4 = '10.9.0.101'

describe('virtual addresses that a stranger has', { skip: whyNoNamespaces(), timeout: 300_000 }, () => {
  let net: TestPair
  let stateDir = ''
  before(() => {
    net = createPair('usgs')
  })
  beforeEach(() => {
    stateDir = mkdtempSync(join(tmpdir(), 'understudy-vips-'))
  })
  after(() => net?.remove())

  const stranger = (verb: 'add' | 'del', address: string): string =>
    net.client.exec('ip', 'address', verb, address.includes(':') ? `${address}/64` : `${address}/24`, 'dev', 'lan0')
  const held = (): string => net.host.exec('ip', '-o', 'address', 'show', 'dev', 'lan0')
  const claimed = (): string[] => JSON.parse(readFileSync(join(stateDir, 'claimed-addresses.json'), 'utf8')).addresses

  /** A driver in the host's network; it is moved there for each call that opens sockets. */
  async function withDriver(vips: string[], work: (driver: VipDriver) => Promise<void>): Promise<void> {
    const input = { ...exampleConfig, stateDir, vips: vips.map(address => ({ address, interface: 'lan0' })) }
    const driver = net.host.run(() => new VipDriver(parseConfig(JSON.stringify(input), 'the test')))
    try {
      await work(driver)
    } finally {
      net.host.run(() => driver.down())
      driver.close()
      rmSync(stateDir, { recursive: true, force: true })
    }
  }

  test('an address that is new in the configuration and in use is not put up, told with who has it, and put up when it is free', async () => {
    writeFileSync(join(stateDir, 'claimed-addresses.json'), JSON.stringify({ addresses: [VIP4] }))
    stranger('add', NEW4)
    await withDriver([`${VIP4}/24`, `${NEW4}/24`], async driver => {
      await net.host.run(() => driver.prepare({ isPrimary: true }))
      net.host.run(() => driver.up())
      assert.ok(held().includes(` ${VIP4}/`) && !held().includes(` ${NEW4}/`), held())
      assert.match(
        driver.trouble(),
        new RegExp(`^${NEW4} is in use by ${STRANGER_MAC}.* is not put up here: free it there`),
      )
      assert.deepEqual(claimed(), [VIP4], 'it stays new')
      // The restoring of lost addresses leaves it alone as well.
      net.host.run(() => driver.tick(bootMs()))
      assert.ok(!held().includes(` ${NEW4}/`), held())
      stranger('del', NEW4)
      net.host.run(() => driver.tick(bootMs() + 120_000))
      await until(() => driver.trouble() === '')
      net.host.run(() => driver.tick(bootMs() + 125_000))
      assert.ok(held().includes(` ${NEW4}/`), held())
      await until(() => claimed().includes(NEW4))
    })
  })

  test('an address that is new and free is put up, and is not new the next time', async () => {
    writeFileSync(join(stateDir, 'claimed-addresses.json'), JSON.stringify({ addresses: [VIP4] }))
    await withDriver([`${VIP4}/24`, `${NEW4}/24`, `${VIP6}/64`], async driver => {
      await net.host.run(() => driver.prepare({ isPrimary: true }))
      net.host.run(() => driver.up())
      for (const address of [VIP4, NEW4, VIP6]) assert.ok(held().includes(` ${address}/`), held())
      assert.deepEqual(claimed(), [VIP4, NEW4, VIP6])
    })
  })

  test('a backup asks nobody: a new address may be the primary’s, and a takeover waits for no answer', async () => {
    writeFileSync(join(stateDir, 'claimed-addresses.json'), JSON.stringify({ addresses: [] }))
    stranger('add', NEW4)
    await withDriver([`${NEW4}/24`], async driver => {
      await net.host.run(() => driver.prepare({ isPrimary: false }))
      net.host.run(() => driver.up())
      assert.ok(held().includes(` ${NEW4}/`), held())
      // Beside the takeover it is asked all the same.
      await until(() => driver.trouble().startsWith(`${NEW4} is also answered by ${STRANGER_MAC}`))
    })
    stranger('del', NEW4)
  })

  test('the host that takes the addresses over is no stranger to the one that had them', async () => {
    writeFileSync(join(stateDir, 'claimed-addresses.json'), JSON.stringify({ addresses: [VIP4, VIP6] }))
    await withDriver([`${VIP4}/24`, `${VIP6}/64`], async driver => {
      await net.host.run(() => driver.prepare({ isPrimary: true }))
      net.host.run(() => driver.up())
      const sender = new AnnouncementSender()
      const announce = (): void => {
        for (const address of [VIP4, VIP6])
          net.peer.run(() => sender.announce({ iface: 'lan0', mac: '52:54:00:00:09:02', address }))
      }
      // It announces them while this one still has them and is asking; this one then gives them up, or goes on.
      for (const then of ['gives them up', 'goes on']) {
        const asked = net.host.run(() => {
          driver.up()
          return driver.probe()
        })
        announce()
        if (then === 'gives them up') net.host.run(() => driver.down())
        await asked
        assert.equal(driver.trouble(), '', then)
      }
      sender.close()
    })
  })

  for (const address of [VIP4, VIP6]) {
    test(`after a restart ${address} that a stranger took meanwhile is served on, and told of with who has it`, async () => {
      writeFileSync(join(stateDir, 'claimed-addresses.json'), JSON.stringify({ addresses: [address] }))
      stranger('add', address)
      await withDriver([`${address}/${address.includes(':') ? 64 : 24}`], async driver => {
        await net.host.run(() => driver.prepare({ isPrimary: true }))
        net.host.run(() => driver.up())
        assert.ok(held().includes(` ${address}/`), held())
        await until(() => driver.trouble().startsWith(`${address} is also answered by ${STRANGER_MAC}`))
        stranger('del', address)
        net.host.run(() => driver.tick(bootMs() + 120_000))
        await until(() => driver.trouble() === '')
      })
    })
  }

  test('an address that goes with the host’s own one is back at the next tick; one that is taken away again and again each second', async () => {
    writeFileSync(join(stateDir, 'claimed-addresses.json'), JSON.stringify({ addresses: [VIP4] }))
    net.host.exec('sysctl', '-qw', 'net.ipv4.conf.lan0.promote_secondaries=0')
    await withDriver([`${VIP4}/24`], async driver => {
      const told: string[] = []
      driver.onAlarm(why => told.push(why))
      const begunMs = bootMs()
      const atMs = (afterMs: number): number => begunMs + afterMs
      const isHeldAfterTick = (nowMs: number): boolean => {
        net.host.run(() => driver.tick(nowMs))
        return held().includes(` ${VIP4}/`)
      }
      net.host.run(() => driver.up())
      assert.ok(isHeldAfterTick(atMs(0)))
      net.host.exec('ip', 'address', 'del', `${HOST4}/24`, 'dev', 'lan0')
      assert.ok(!held().includes(` ${VIP4}/`), 'the kernel has removed it with the other')
      assert.ok(isHeldAfterTick(atMs(100)), held())
      net.host.exec('ip', 'address', 'del', `${VIP4}/24`, 'dev', 'lan0')
      assert.ok(!isHeldAfterTick(atMs(1000)), 'whoever removes it at once is not answered at once')
      assert.ok(isHeldAfterTick(atMs(1100)), held())
      assert.deepEqual(told, Array(2).fill(`${VIP4} had been removed by somebody else and was put back`))
    })
    net.host.exec('ip', 'address', 'replace', `${HOST4}/24`, 'dev', 'lan0')
  })
})
