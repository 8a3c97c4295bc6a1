import assert from 'node:assert/strict'
import type { ExecResult } from '../../../node-agent/exec.ts'

type Told = Record<string, unknown>

/** All devices, addresses and routes of a host, more than our own inventory tells: what a change may not leave behind. */
export async function networkState(run: (argv: readonly string[]) => Promise<ExecResult>): Promise<object> {
  const read = async (...words: string[]): Promise<Told[]> => {
    const said = await run(['ip', '-json', ...words])
    assert.ok(said.ok, said.ok ? '' : said.why)
    return JSON.parse(said.stdout || '[]') as Told[]
  }
  const links = await read('-details', 'link', 'show')
  const addresses = await read('address', 'show')
  const routes = [
    ...(await read('-4', 'route', 'show', 'table', 'all')),
    ...(await read('-6', 'route', 'show', 'table', 'all')),
  ]
  const ofLink = links.map(one => ({ ...one, up: (one.flags as string[]).includes('UP') }))
  return {
    links: picked(ofLink, ['ifname', 'up', 'mtu', 'master']),
    bridges: links.flatMap(bridgeOf),
    addresses: addresses.map(one => [
      one.ifname,
      picked((one.addr_info as Told[]).filter(isGlobal), ['local', 'prefixlen']),
    ]),
    routes: picked(
      // The kernel makes these with each link.
      routes.filter(one => !/^(fe80|ff00|multicast)/.test(one.dst as string) && one.table !== 'local'),
      ['dst', 'gateway', 'dev', 'metric', 'protocol', 'table', 'prefsrc', 'scope', 'metrics', 'nexthops', 'flags'],
    ),
  }
}

/** Without what the kernel counts and finds out. */
function bridgeOf({ ifname, address, linkinfo }: Told): unknown[] {
  const { info_kind: kind, info_data: data } = (linkinfo ?? {}) as Told
  if (kind !== 'bridge') return []
  const set = Object.entries(data as Told).filter(([word]) => !/_id$|_timer$|^root_|^topology_/.test(word))
  return [{ ifname, address, ...Object.fromEntries(set) }]
}

const isGlobal = (address: Told): boolean => address.scope === 'global'
const picked = (from: readonly Told[], fields: readonly string[]): string[] =>
  from.map(one => JSON.stringify(fields.map(field => one[field] ?? null))).sort()
