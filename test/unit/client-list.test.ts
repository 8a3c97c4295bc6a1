import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import { ClientList } from '../../node-agent/vip/client-list.ts'
import { countsOf } from '../../node-agent/vip/connection-count.ts'

function watched() {
  const seen = { count: '1 1' as string | null, clients: ['first'], listed: 0, tookMs: 0 }
  let watchMs = 0
  const list = new ClientList({
    list: () => {
      seen.listed += 1
      watchMs += seen.tookMs
      return [...seen.clients]
    },
    count: () => seen.count,
    stopwatch: () => watchMs,
  })
  return { seen, list }
}

test('while the kernel counts no connection more or less, the clients are not listed again', () => {
  const { seen, list } = watched()
  for (let now = 0; now < 1000; now += 250) assert.deepEqual(list.look(now), ['first'])
  const listed = seen.listed
  const before = list.look(1000)
  for (let now = 1250; now < 4000; now += 250) assert.equal(list.look(now), before)
  assert.equal(seen.listed, listed)
})

test('one that comes is seen at the next look, also where the count was ahead of the list', () => {
  const { seen, list } = watched()
  for (let now = 0; now < 2000; now += 250) list.look(now)
  seen.count = '2 2'
  assert.deepEqual(list.look(2000), ['first'])
  seen.clients = ['first', 'second']
  assert.deepEqual(list.look(2250), ['first', 'second'])
})

test('where nothing can be counted, and now and then in any case, they are listed', () => {
  const { seen, list } = watched()
  for (let now = 0; now < 2000; now += 250) list.look(now)
  seen.clients = ['other']
  assert.deepEqual(list.look(20_000), ['other'])
  seen.count = null
  seen.clients = ['another']
  assert.deepEqual(list.look(20_250), ['another'])
})

test('where there are so many that a list takes long, it is made more rarely, however many come and go', () => {
  const { seen, list } = watched()
  seen.tookMs = 40
  seen.count = null
  for (let now = 0; now < 8000; now += 250) list.look(now)
  assert.equal(seen.listed, 4)
})

test('the counts are read from the text that this kernel writes, wherever it has its columns', () => {
  const text = readFileSync('/proc/net/snmp', 'utf8')
  assert.match(countsOf(text) ?? '', /^\d+ \d+$/)
  assert.equal(countsOf('Tcp: CurrEstab Other PassiveOpens\nTcp: 7 8 9\n'), '9 7')
  assert.equal(countsOf('Tcp: CurrEstab Other\nTcp: 7 8\n'), null)
  assert.equal(countsOf('Udp: CurrEstab\nUdp: 1\n'), null)
})
