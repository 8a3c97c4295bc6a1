import type { PrecheckResult } from '../../../shared/contract/api/pairs.ts'
import type { PairSettings } from '../../../shared/contract/api/settings.ts'
import { type Difference, networkDifferences } from '../../../shared/hosts/network.ts'
import { lunDifferences } from '../../../shared/hosts/storage.ts'
import { lunListOf } from '../../../shared/hosts/summary.ts'
import { contains, parseAddress, parsePrefix } from '../../../shared/ip.ts'
import type { WitnessPlace } from '../../deps.ts'
import { currentReport, type HostRows, isConnected, lastHeard, skewMaxMs, skewOf } from '../host/host-view.ts'

import { witnessLimitMs } from './measured.ts'

/**
 * What a pair needs of its two hosts, as far as their facts and reports tell. What only the hosts can measure (the
 * network between them, who answers for a VIP, the witness, ports, processes under the data directory) their agents
 * answer to the command `prechecks`, in the same shape.
 */
export interface PrecheckInput {
  settings: PairSettings
  hosts: { a: HostRows; b: HostRows }
  /** The pair that the check is for; null: one that is to be set up. */
  pair: string | null
  /** Where hosts reach the hosted witness; null: nowhere. */
  hostedWitness: WitnessPlace | null
  now: Date
}

/** Of the data partition, from the vendor's prerequisites. */
const dataPartitionMb = 20 * 1024
/** Two disks of the same model differ by less. */
const diskToleranceShare = 0.01

type Finding = Omit<PrecheckResult, 'host'> & { host?: PrecheckResult['host'] }
type Facts = NonNullable<HostRows['host']['facts']>

export function knownPrechecks(input: PrecheckInput): PrecheckResult[] {
  const { a, b } = input.hosts
  const each = (['a', 'b'] as const).flatMap(slot => ofOneHost(input, slot).map(one => ({ ...one, host: slot })))
  const facts = { a: a.host.facts ?? {}, b: b.host.facts ?? {} }
  const both: Finding[] = [
    same('architecture', 'blocking', facts, it => it.architecture, 'use two hosts of one processor architecture'),
    same(
      'postgres_version',
      'blocking',
      facts,
      it => it.postgresVersion ?? undefined,
      'install the same major version of PostgreSQL on both',
      majorOf,
    ),
    same(
      'product_version',
      'warning',
      facts,
      it => it.productVersion,
      'bring both hosts to the same version of Understudy',
    ),
    same(
      'hardware',
      'warning',
      facts,
      it => it.product,
      'use the same hardware: after a takeover the other host has to carry the load',
    ),
    same(
      'boot_mode',
      'warning',
      facts,
      it => (it.bootMode === 'unknown' ? undefined : it.bootMode),
      'boot both hosts by UEFI, or both by BIOS',
    ),
    same(
      'memory',
      'warning',
      facts,
      it => (it.memoryMb === undefined ? undefined : `${Math.round(it.memoryMb / 1024)} GiB`),
      'give both hosts the same memory',
    ),
    disks(facts),
    timeOffset(input),
    ...alike(input.hosts),
  ]
  return [...each, ...both.map(one => ({ host: null, ...one }))]
}

function ofOneHost(input: PrecheckInput, slot: 'a' | 'b'): Finding[] {
  const { settings, now } = input
  const rows = input.hosts[slot]
  const facts: Facts = rows.host.facts ?? {}
  const connected = isConnected(rows, now) === 'yes'
  const heard = lastHeard(rows)
  const wanted = settings.hosts[slot].addresses
  const own = (facts.addresses ?? []).map(one => one.address)
  const missing = own.length === 0 ? [] : wanted.filter(text => !own.some(address => address.split('/')[0] === text))
  const otherPair = rows.pair !== null && rows.pair.id !== input.pair ? rows.pair.id : null
  const found: Finding[] = [
    {
      code: 'connected',
      severity: connected ? 'passed' : 'blocking',
      measured:
        heard === null ? 'never heard' : `last heard ${Math.round((now.getTime() - heard.getTime()) / 1000)} s ago`,
      limit: 'heard within 30 s',
      remedy: 'start the agent there, and let it reach this control plane',
    },
    {
      code: 'not_paired',
      severity: otherPair === null ? 'passed' : 'blocking',
      measured: otherPair === null ? 'in no other pair' : `in pair ${otherPair}`,
      limit: 'a host is in one pair',
      remedy: 'end that pair first, or choose another host',
    },
    {
      code: 'addresses',
      severity: own.length === 0 ? 'unknown' : missing.length === 0 ? 'passed' : 'blocking',
      measured: own.length === 0 ? 'no address reported' : own.join(', '),
      limit: `has ${wanted.join(', ')}`,
      remedy: `name addresses that the host has${missing.length === 0 ? '' : `, or give it ${missing.join(', ')} first`}`,
    },
    {
      code: 'data_space',
      severity:
        facts.dataSizeMb === undefined || facts.dataSizeMb === null
          ? 'unknown'
          : facts.dataSizeMb >= dataPartitionMb
            ? 'passed'
            : 'blocking',
      measured:
        facts.dataSizeMb === undefined || facts.dataSizeMb === null ? 'not reported' : `${facts.dataSizeMb} MiB`,
      limit: `at least ${dataPartitionMb} MiB on the data partition`,
      remedy: 'enlarge the partition, or put the data directory on another one',
    },
    {
      code: 'time_source',
      severity:
        facts.timeSource === 'synchronised' ? 'passed' : facts.timeSource === 'unsynchronised' ? 'warning' : 'unknown',
      measured: facts.timeSource ?? 'not reported',
      limit: 'a time server keeps the clock',
      remedy: 'set a time server (NTP) on the host',
    },
    ...vipSubnets(settings, addressesOf(rows, facts)),
    witnessOf(input, slot),
  ]
  return found
}

/** As the host's agent measures it while the pair runs; before that the hosts are asked (`startPrechecks`, set-up). */
function witnessOf({ settings, hosts, hostedWitness, now }: PrecheckInput, slot: 'a' | 'b'): Finding {
  const { kind } = settings.arbitration.witness
  const limitMs = witnessLimitMs(settings)
  const finding = {
    code: 'witness',
    limit: `a vote within ${Math.floor(limitMs)} ms at p99, which the profile ${settings.profile} admits`,
    remedy: 'let the host reach it, place it nearer, or choose a profile with longer leases',
  }
  if (kind === 'none')
    return {
      ...finding,
      severity: 'warning',
      measured: 'no witness is wanted',
      remedy: 'without one there is no automatic takeover: choose the hosted witness, or an own one on a third machine',
    }
  if (kind === 'hosted' && hostedWitness === null)
    return {
      ...finding,
      severity: 'blocking',
      measured: 'this control plane is not reached over TLS, and a vote that others can write is none',
      remedy: 'give it a PUBLIC_URL or a WITNESS_URL with https, or use a witness of your own',
    }
  const told = currentReport(hosts[slot], now)?.pair?.witness ?? null
  if (told === null || told.reach === 'unknown')
    return {
      ...finding,
      severity: 'unknown',
      measured: told?.why ?? 'not told by the host: it measures when it is asked',
    }
  if (told.reach === 'no') return { ...finding, severity: 'blocking', measured: `not reached: ${told.why}` }
  const { voteP99Ms } = told
  const slow = voteP99Ms !== null && voteP99Ms > limitMs
  const measured = voteP99Ms === null ? 'reached' : `reached, ${voteP99Ms.toFixed(1)} ms for a vote at p99`
  return { ...finding, severity: slow ? 'warning' : 'passed', measured }
}

type HeldAddresses = NonNullable<Facts['addresses']>

/** As it last told, which is newer than what it was enrolled with. */
const addressesOf = ({ summary }: HostRows, facts: Facts): HeldAddresses =>
  summary?.networks.flatMap(({ name, addresses }) => addresses.map(address => ({ interface: name, address }))) ??
  facts.addresses ??
  []

function vipSubnets(settings: PairSettings, addresses: HeldAddresses): Finding[] {
  return settings.vips.map(vip => {
    const on = addresses.filter(one => one.interface === vip.interface)
    const inside = on.some(one => {
      const subnet = parsePrefix(one.address)
      const address = parseAddress(vip.address.split('/')[0] ?? '')
      return subnet !== null && address !== null && contains(subnet, address)
    })
    return {
      code: 'vip_in_subnet',
      severity: addresses.length === 0 ? 'unknown' : inside ? 'passed' : 'blocking',
      measured: on.length === 0 ? `no address on ${vip.interface}` : on.map(one => one.address).join(', '),
      limit: `${vip.address} lies in the subnet of ${vip.interface}`,
      remedy: 'choose an address of that network, or the interface that is in the network of the address',
    }
  })
}

function same(
  code: string,
  severity: 'blocking' | 'warning',
  facts: { a: Facts; b: Facts },
  pick: (facts: Facts) => string | undefined,
  remedy: string,
  key: (value: string) => string = value => value,
): Finding {
  const [left, right] = [pick(facts.a), pick(facts.b)]
  const known = left !== undefined && right !== undefined
  return {
    code,
    severity: !known ? 'unknown' : key(left) === key(right) ? 'passed' : severity,
    measured: `a: ${left ?? 'not reported'}, b: ${right ?? 'not reported'}`,
    limit: 'the same on both hosts',
    remedy,
  }
}

const majorOf = (version: string): string => version.split('.')[0] ?? version

function disks(facts: { a: Facts; b: Facts }): Finding {
  const sizes = (it: Facts): number[] | undefined => it.disks?.map(disk => disk.sizeMb).sort((x, y) => x - y)
  const [left, right] = [sizes(facts.a), sizes(facts.b)]
  const show = (list: number[] | undefined): string =>
    list === undefined ? 'not reported' : `${list.length} disks (${list.join(', ')} MiB)`
  const alike =
    left !== undefined &&
    right !== undefined &&
    left.length === right.length &&
    left.every((size, at) => Math.abs(size - right[at]!) <= diskToleranceShare * Math.max(size, right[at]!))
  return {
    code: 'disks',
    severity: left === undefined || right === undefined ? 'unknown' : alike ? 'passed' : 'warning',
    measured: `a: ${show(left)}, b: ${show(right)}`,
    limit: 'the same number and sizes on both hosts',
    remedy: 'the smaller host limits the pair: give both the same disks',
  }
}

/** What a takeover would miss on the other host: the hosts' own comparison, made here for a pair that is to be set up. */
function alike({ a, b }: PrecheckInput['hosts']): Finding[] {
  const of = (
    code: string,
    differences: readonly Difference[] | null,
    part: { limit: string; remedy: string },
  ): Finding => ({
    code,
    severity:
      differences === null
        ? 'unknown'
        : differences.length === 0
          ? 'passed'
          : differences.some(one => one.blocks)
            ? 'blocking'
            : 'warning',
    measured:
      differences === null
        ? 'not told by both hosts yet'
        : differences.length === 0
          ? 'nothing differs'
          : differences
              .slice(0, shownDifferences)
              .map(one => one.why)
              .join('; '),
    ...part,
  })
  const both = a.summary === null || b.summary === null ? null : { a: a.summary, b: b.summary }
  return [
    of('vswitches', both && networkDifferences({ a: both.a.vswitches, b: both.b.vswitches }), {
      limit: 'the same virtual switches, with the same VLAN, MTU and types, on both hosts',
      remedy: 'make or change them on the host that lacks them',
    }),
    of('shared_luns', both && lunDifferences({ a: lunListOf(both.a), b: lunListOf(both.b) }), {
      limit: 'both hosts see the same shared LUNs, of the same size, by a path that is up',
      remedy: 'map the LUN to both hosts and scan on the one that lacks it',
    }),
  ]
}
const shownDifferences = 5

/** Both are compared with the clock here, so the way of their reports is in it: fit to find hours, not milliseconds. */
function timeOffset({ hosts, now }: PrecheckInput): Finding {
  const skewMs = (rows: HostRows): number | null => (isConnected(rows, now) === 'yes' ? skewOf(rows) : null)
  const [left, right] = [skewMs(hosts.a), skewMs(hosts.b)]
  const apartMs = left === null || right === null ? null : Math.abs(left - right)
  return {
    code: 'time_offset',
    severity: apartMs === null ? 'unknown' : apartMs <= skewMaxMs ? 'passed' : 'warning',
    measured: apartMs === null ? 'not known of both hosts' : `${apartMs} ms`,
    limit: `at most ${skewMaxMs} ms between the hosts`,
    remedy: 'set the same time server on both; the pair does not rest on clocks, but logs and certificates do',
  }
}

export const passes = (results: readonly PrecheckResult[]): boolean => results.every(one => one.severity !== 'blocking')
