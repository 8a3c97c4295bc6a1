import { type FamilyOption, ip } from './commands.ts'

/**
 * Routes in the words in which ip(8) prints them and takes them again (ip-route(8)), so that one which a change loses is put
 * back with all that it had: its next hops, its table, its source. The JSON of ip(8) leaves some of it out ("mtu lock").
 */
export interface KernelRoute {
  family: FamilyOption
  destination: string
  /** One, or several that share the traffic. */
  hops: Hop[]
  /** null: the main one. */
  table: string | null
  /** An address of this host that the route goes with. */
  source: string | null
  metric: string | null
  protocol: string | null
  /** Everything behind destination and next hops. */
  words: string[]
  /** What of it can't be said again; null: all of it can. */
  unrepeatable: string | null
}

export interface Hop {
  /** null: what it leads to is on the link itself. */
  gateway: string | null
  device: string
  /** Before and behind the device: "via inet6 fe80::1", "weight 2", "onlink". */
  via: string[]
  words: string[]
}

/** Asked with `-oneline`. Not with `-details`: what that adds are defaults. */
export const routeQuestion = (family: FamilyOption): string[] => ip('-oneline', family, 'route', 'show', 'table', 'all')

/** Those over devices. What the kernel makes with an address or a link is not among them: it makes it again. */
export const parseKernelRoutes = (text: string, family: FamilyOption): KernelRoute[] =>
  text.split('\n').flatMap(line => routeOf(line, family) ?? [])

/** "blackhole 10.0.0.0/8" leads nowhere, and "local 10.0.0.5" to this host. */
const otherTypes = /^(local|broadcast|anycast|multicast|blackhole|unreachable|prohibit|throw|nat|xresolve)$/
/** With a value. */
const known = new Set(['table', 'proto', 'scope', 'src', 'metric', 'pref', 'tos', 'realm', 'realms', 'expires'])
/** With a value too, which "lock" may stand before (ip-route(8), the metrics of a route). */
const measures = new Set([
  'mtu',
  'advmss',
  'window',
  'rtt',
  'rttvar',
  'ssthresh',
  'cwnd',
  'initcwnd',
  'initrwnd',
  'reordering',
  'hoplimit',
  'rto_min',
  'quickack',
  'congctl',
  'features',
])
/** What has become of it and is no part of it. */
const states = new Set(['linkdown', 'pervasive', 'offload', 'trap', 'rt_offload', 'rt_trap', 'notify'])

function routeOf(line: string, family: FamilyOption): KernelRoute | null {
  // "-oneline" puts a backslash where a line would end.
  const words = line.split(/[\s\\]+/).filter(word => word !== '')
  const destination = words.shift()
  if (destination === undefined || otherTypes.test(destination)) return null
  const found = { words: [] as string[], hops: [] as Hop[], values: new Map<string, string>(), odd: [] as string[] }
  let hop: Hop = newHop()
  for (let word = words.shift(); word !== undefined; word = words.shift()) {
    if (word === 'nexthop') {
      if (hop.device !== '') found.hops.push(hop)
      hop = newHop()
    } else if (word === 'via') {
      const first = words.shift() ?? ''
      const foreign = first === 'inet' || first === 'inet6'
      hop.gateway = foreign ? (words.shift() ?? '') : first
      hop.via = foreign ? ['via', first, hop.gateway] : ['via', first]
    } else if (word === 'dev') hop.device = words.shift() ?? ''
    else if (word === 'weight') hop.words.push(word, words.shift() ?? '')
    else if (word === 'onlink') hop.words.push(word)
    else if (known.has(word) || measures.has(word)) {
      const lock = measures.has(word) && words[0] === 'lock' ? [words.shift()!] : []
      const value = words.shift() ?? ''
      found.values.set(word, value)
      // Printed with its unit, taken without.
      found.words.push(word, ...lock, word === 'expires' ? value.replace(/sec$/, '') : value)
    } else if (!states.has(word)) found.odd.push(word)
  }
  if (hop.device !== '') found.hops.push(hop)
  const value = (word: string): string | null => found.values.get(word) ?? null
  if (found.hops.length === 0 || value('table') === 'local' || value('proto') === 'kernel') return null
  return {
    family,
    destination,
    hops: found.hops,
    table: value('table'),
    source: value('src'),
    metric: value('metric'),
    protocol: value('proto'),
    words: found.words,
    unrepeatable: found.odd[0] ?? null,
  }
}

const newHop = (): Hop => ({ gateway: null, device: '', via: [], words: [] })

/** `replace` and `append` make it, `del` takes exactly this one. */
export function routeCommand(
  verb: 'replace' | 'append' | 'del',
  { family, destination, hops, words }: KernelRoute,
): string[] {
  const way = ({ via, device, words: more }: Hop): string[] => [...via, 'dev', device, ...more]
  // One that is left of several still has a weight, which only a "nexthop" may have.
  const plain = hops.length === 1 && !hops[0]?.words.includes('weight')
  const ways = hops.flatMap(hop => (plain ? way(hop) : ['nexthop', ...way(hop)]))
  return ip(family, 'route', verb, destination, ...ways, ...(verb === 'del' ? withoutExpiry(words) : words))
}

/** It has gone on since. */
function withoutExpiry(words: readonly string[]): string[] {
  const at = words.indexOf('expires')
  return at === -1 ? [...words] : words.toSpliced(at, 2)
}

export const showRoute = ({ destination, hops, table }: KernelRoute): string => {
  const ways = hops.map(hop => (hop.gateway === null ? '' : ` via ${hop.gateway}`)).join(' and')
  return `${destination}${ways}${table === null ? '' : ` of table ${table}`}`
}
