import assert from 'node:assert/strict'
import { test } from 'node:test'
import { ConfigError, type ConfigInput, parseConfig } from '../../node-agent/config.ts'
import { exampleConfig } from './example-config.ts'

/** The sentences with which a changed configuration is refused. */
function refusal(change: (config: ConfigInput & Record<string, unknown>) => void): string {
  const config = { ...structuredClone(exampleConfig) }
  change(config)
  try {
    parseConfig(JSON.stringify(config), 'agent.json')
  } catch (error) {
    if (error instanceof ConfigError) return error.message
    throw error
  }
  return 'accepted'
}

test('a complete configuration is accepted and its defaults are filled in', () => {
  const config = parseConfig(JSON.stringify(exampleConfig), 'agent.json')
  assert.equal(config.profile, 'default')
  assert.equal(config.postgres.walSegmentMb, 1)
  assert.equal(config.stop.onHostShutdown, 'handOff')
  assert.equal(config.services[0]?.restarts.budget, 3)
})

test('an unknown key is refused by name, at the top and below', () => {
  assert.match(
    refusal(config => Object.assign(config, { vip: [] })),
    /\n {2}vip is not a key of this configuration; correct its spelling/,
  )
  assert.match(
    refusal(config => Object.assign(config.postgres, { datadir: '/x' })),
    /postgres\.datadir is not a key/,
  )
  assert.match(
    refusal(config => Object.assign(config.services![0]!, { restart: 1 })),
    /services\[0\]\.restart is not a key/,
  )
})

test('a missing key is named with what belongs there', () => {
  assert.match(
    refusal(config => Reflect.deleteProperty(config, 'stateDir')),
    /stateDir is missing; add it: a string/,
  )
  assert.match(
    refusal(config => Reflect.deleteProperty(config, 'node')),
    /node is missing; add it; it must be one of "a", "b"/,
  )
})

test('each bad address is refused with its value and the way to write it', () => {
  const bad = (address: string): string => refusal(config => Object.assign(config.vips[0]!, { address }))
  assert.match(
    bad('10.9.0.300/24'),
    /vips\[0\]\.address "10\.9\.0\.300\/24" must be an IPv4 or IPv6 address with the prefix length/,
  )
  assert.match(bad('10.9.0.100'), /vips\[0\]\.address "10\.9\.0\.100" must be/)
  assert.match(bad('10.9.0.100/33'), /must be an IPv4/)
  assert.match(bad('010.9.0.1/24'), /must be an IPv4/)
  assert.match(bad('127.0.0.5/8'), /must be a unicast address/)
  assert.match(bad('fe80::1/64'), /must be a unicast address/)
  assert.match(bad('10.9.0.255/24'), /network or broadcast address/)
  assert.match(bad('10.9.0.1/24'), /is also peer\.paths\[0\]\.local; a VIP moves/)
  assert.equal(bad('2001:db8::100/64'), 'accepted')
  const peer = (value: string): string => refusal(config => Object.assign(config.peer.paths[0]!, { peer: value }))
  assert.match(peer('not-an-address'), /peer\.paths\[0\]\.peer "not-an-address" must be an IPv4 or IPv6 address/)
  assert.match(peer('2001:db8::2'), /joins an IPv4 with an IPv6 address/)
  assert.match(peer('10.9.0.1'), /has the same address on both ends/)
})

test('fields that contradict each other are refused with both values', () => {
  assert.match(
    refusal(config => Object.assign(config, { protectedPorts: [80] })),
    /does not contain postgres\.port 5432; add it/,
  )
  assert.match(
    refusal(config => Object.assign(config, { protectedPorts: [5432, 7400] })),
    /peer\.paths\[0\]\.port 7400 is a protected port/,
  )
  assert.match(
    refusal(config => Object.assign(config, { stateDir: `${config.postgres.dataDir}/understudy` })),
    /stateDir .* lies inside postgres\.dataDir/,
  )
  assert.match(
    refusal(config => config.services!.push(config.services![0]!)),
    /services\[1\]\.name "web" is used twice/,
  )
  assert.match(
    refusal(config => Object.assign(config, { socket: `/${'x'.repeat(120)}` })),
    /socket .* is longer than the 107 bytes/,
  )
})

test('a service is one of three kinds and its program an absolute path', () => {
  const service = (value: object): string => refusal(config => config.services!.splice(0, 1, value as never))
  assert.match(service({ name: 'x', unit: 'x.service', run: ['/bin/true'] }), /services\[0\]/)
  assert.match(service({ name: 'x', run: ['true'] }), /services\[0\]\.run \["true"\] must begin with the absolute path/)
  assert.match(
    service({ name: 'x', run: ['/bin/true'], health: { tcp: 'nowhere' } }),
    /services\[0\]\.health\.tcp "nowhere" must be address:port/,
  )
  assert.equal(service({ name: 'x', start: ['/bin/true'], stop: ['/bin/true'] }), 'accepted')
})

test('a file that is not JSON, or not there, is one sentence', () => {
  assert.throws(
    () => parseConfig('{', 'agent.json'),
    /agent\.json was refused, nothing was changed:\n {2}the file is not JSON/,
  )
  assert.match(
    refusal(config => Object.assign(config, { witness: { url: 'http://w', fingerprint: '' } })),
    /witness\.url "http:\/\/w" must be an https URL/,
  )
})

test('the path of a tree is refused unless it is written as it is: it is compared with others, and a line of a unit', () => {
  const tree = (path: string, source?: string): string => {
    const partition = source === undefined ? {} : { partition: { source, sizeMb: 64 } }
    return refusal(config =>
      Object.assign(config, { sync: { port: 7401, trees: [{ name: 'data', path, ...partition }] } }),
    )
  }
  for (const path of ['/srv/data', '/srv/data/', '/srv/a b']) assert.equal(tree(path), 'accepted', path)
  for (const path of ['/srv/./data', '/srv//data', '/srv/x/../data', '//', '/.'])
    assert.match(tree(path), /sync\.trees\[0\]\.path ".*" must be a plain path/, path)
  assert.match(tree('/srv/data\nWhere=/etc'), /must have no control characters/)
  assert.match(tree('/srv/data', '/srv/../data.img'), /partition\.source ".*" must be a plain path/)
})
