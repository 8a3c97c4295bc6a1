import type { DesiredDocument, PairSettings } from '../../shared/contract/api/settings.ts'
import { sha256Hex } from '../../shared/contract/signing.ts'
import { parseAddress, sameAddress } from '../../shared/ip.ts'
import { otherNode } from '../../shared/protocol/nodes.ts'
import { timingOf, voteLimitMs } from '../../shared/protocol/timing.ts'
import type { WishedField, WishedFields } from '../applied-wish.ts'
import type { Config, ConfigInput, PeerPath, WitnessPlace } from '../config.ts'
import { samePlace, type WantedWitnesses } from '../witness/places.ts'

/** A wish as parts of this host's configuration. Pure: what is refused is refused here, with its reason. */
export type PairWish = NonNullable<DesiredDocument['pair']>

export const settingsHash = (settings: PairSettings): Promise<string> => sha256Hex(JSON.stringify(settings))

/** Which parts of the configuration follow from which settings: a setting that did not change leaves them alone. */
const partsOf: Record<keyof PairSettings, readonly WishedField[]> = {
  profile: ['profile'],
  vips: ['vips'],
  protectedPorts: ['protectedPorts'],
  arbitration: ['witness'],
  witnessAdmission: ['witness'],
  // Of files beside the configuration (key-change.ts).
  keyChange: [],
  services: ['services'],
  hosts: ['peer'],
  peerPort: ['peer'],
  mode: ['network'],
  syncPartition: ['sync'],
  // Kept for the portal; nothing on a host follows from it yet.
  ipFamily: [],
}

export type Rendered = { ok: true; fields: WishedFields } | { ok: false; why: string }

/** Everything of a configuration that a wish determines: for a host that is set up from afar. */
export function wholeFields(wish: PairWish, base: Record<string, unknown>): Rendered {
  const { settings, node } = wish
  const witness = wantedWitnesses(wish)
  if (!witness.ok) return witness
  const there = settings.hosts[otherNode(node)].addresses
  const fields: Omit<{ [field in WishedField]: unknown }, 'sync'> & Pick<ConfigInput, WishedField> = {
    pair: wish.name,
    node,
    profile: settings.profile,
    peer: {
      paths: settings.hosts[node].addresses.map((local, at) => ({
        local,
        peer: there[at] ?? '',
        port: settings.peerPort,
      })),
    },
    vips: settings.vips.map(vip => ({ address: vip.address, interface: vip.interface })),
    protectedPorts: settings.protectedPorts,
    // Without an incarnation yet, and without its alternate: whoever applies it has them admitted.
    witness: witness.value?.first ?? null,
    services: servicesOf(settings, base),
    network: { ...(base.network as ConfigInput['network']), deployment: settings.mode },
    // Without a wish the trees of the operator's file count, as it is at each start.
    ...(settings.syncPartition === null ? {} : { sync: syncOf(settings, settings.syncPartition, base) }),
  }
  return { ok: true, fields }
}

/** Only what the wish changes against the one before; the rest stays as it is in force. */
export function changedFields(
  wish: PairWish,
  part: { before: PairSettings; fields: WishedFields; base: Record<string, unknown> },
): Rendered {
  const names = Object.keys(partsOf) as (keyof PairSettings)[]
  const changed = names.filter(name => JSON.stringify(wish.settings[name]) !== JSON.stringify(part.before[name]))
  const wanted = new Set(changed.flatMap(name => partsOf[name]))
  if (wanted.size === 0) return { ok: true, fields: part.fields }
  // A witness that is not changed is not looked at.
  const none = { ...wish.settings.arbitration, witness: { kind: 'none' as const } }
  const asked = wanted.has('witness') ? wish : { ...wish, settings: { ...wish.settings, arbitration: none } }
  const whole = wholeFields(asked, part.base)
  if (!whole.ok) return whole
  const kept = Object.entries(part.fields).filter(([name]) => !wanted.has(name as WishedField))
  const now = [...wanted].map(name => [name, whole.fields[name]] as const).filter(([, value]) => value !== undefined)
  return { ok: true, fields: Object.fromEntries([...kept, ...now]) }
}

/** What can't be changed under a pair that serves, one host after the other. null: nothing stands in the way. */
export function whyNotLive(before: Config, after: Config): string | null {
  if (before.pair !== after.pair || before.node !== after.node)
    return `this host is node ${before.node} of pair ${before.pair}, and the wish is for node ${after.node} of pair ${after.pair}`
  if (after.witness !== null && after.witness.inc === null && !samePlace(before.witness, after.witness))
    return `witness.url is ${after.witness.url}, another witness than ${before.witness?.url ?? 'none'}, and it has not admitted this pair: \`understudy change witness\` has it do so`
  const same = (one: Config['peer']['paths'][number]): boolean =>
    after.peer.paths.some(other => JSON.stringify(other) === JSON.stringify(one))
  if (!before.peer.paths.some(same))
    return 'no path between the hosts would stay as it is: they would lose each other while one has the new addresses and the other not yet. Change one path at a time'
  return null
}

/** null: the pair is to do without one. Its alternate is admitted while the pair runs, never by a set-up. */
export function wantedWitnesses({ settings, hostedWitness }: PairWish): Chosen<WantedWitnesses | null> {
  const { witness, alternate } = settings.arbitration
  const first = placeWanted(witness, hostedWitness)
  if (!first.ok) return first
  if (first.value === null) return { ok: true, value: null }
  const other = alternate === null ? null : placeWanted(alternate, hostedWitness)
  if (other?.ok === false) return other
  return {
    ok: true,
    value: { first: first.value, alternate: other?.value ?? null, awayS, anew: null },
  }
}
type Chosen<Value> = { ok: true; value: Value } | { ok: false; why: string }
/** Longer than an update of the witness's machine takes. */
const awayS = 600

function placeWanted(
  witness: PairSettings['arbitration']['witness'],
  hostedWitness: PairWish['hostedWitness'],
): Chosen<WitnessPlace | null> {
  switch (witness.kind) {
    case 'none':
      return { ok: true, value: null }
    case 'own':
      return { ok: true, value: { url: witness.url, fingerprint: witness.fingerprint, hosted: false } }
    case 'hosted':
      if (hostedWitness !== null) return { ok: true, value: { ...hostedWitness, hosted: true } }
      return {
        ok: false,
        why: 'this control plane is not reached over TLS, and a vote that others can write is none: set up with a witness of your own, or with none',
      }
  }
}

/** The one tree that is wished from afar has this name on both hosts. */
export const wishedTree = 'data'
/** The partition that a host makes for it, in a file beside it. */
export const madeBeside = (path: string, sizeGb: number) => ({ source: `${path}.img`, sizeMb: sizeGb * 1024 })

/** Trees of the operator's own stay; so do the patterns and the policy of the one that is wished. */
function syncOf(
  { peerPort }: PairSettings,
  { path, sizeGb }: NonNullable<PairSettings['syncPartition']>,
  base: Record<string, unknown>,
): NonNullable<ConfigInput['sync']> {
  const own = (base.sync ?? null) as ConfigInput['sync'] | null
  const isWished = (tree: { name: string; path: string }): boolean => tree.name === wishedTree || tree.path === path
  const before = own?.trees.find(isWished)
  const partition = sizeGb === null ? (before?.partition ?? null) : madeBeside(path, sizeGb)
  const wished = { ...before, name: before?.name ?? wishedTree, path, partition }
  return {
    port: own?.port ?? (peerPort < portMax ? peerPort + 1 : peerPort - 1),
    trees: [...(own?.trees.filter(tree => !isWished(tree)) ?? []), wished],
  }
}
const portMax = 65_535

/** Old and new at once, so that the hosts hear each other while one has the new addresses and the other not yet. */
export function overlapping(before: Config['peer']['paths'], after: readonly PeerPath[]): PeerPath[] {
  const both = [...after, ...before.filter(old => !after.some(one => samePath(one, old)))]
  if (both.length <= pathsAtOnce) return both
  throw new Error(
    `hosts has ${after.length} paths, and with those before there would be ${both.length}: ${pathsAtOnce} at once are the most, so change one path after the other`,
  )
}
/** As a configuration allows. */
const pathsAtOnce = 4

export const samePath = (one: PeerPath, other: PeerPath): boolean =>
  one.local === other.local && one.peer === other.peer && one.port === other.port

/** A path that is new has its own end on this host already. null: nothing is missing. */
export function whyUnreachable(before: Config, after: Config, present: readonly string[]): string | null {
  const there = present.map(text => parseAddress(text)).filter(one => one !== null)
  for (const path of after.peer.paths) {
    if (before.peer.paths.some(one => one.local === path.local)) continue
    const wanted = parseAddress(path.local)!
    if (there.some(one => sameAddress(one, wanted))) continue
    return `hosts.${after.node}.addresses has ${path.local}, and no interface of this host has that address: give it to one first`
  }
  return null
}

/** What of a running pair's own figures speaks against a configuration, as field, value and rule. null: nothing. */
export function whyUnfit(
  next: Config,
  running: { profile: Config['profile']; voteP99Ms: number | null },
): string | null {
  const allowedMs = (profile: Config['profile']): number => Math.round(voteLimitMs(timingOf(profile)))
  const limitMs = allowedMs(next.profile)
  // One that allows more makes nothing worse, whatever the witness takes.
  if (running.voteP99Ms === null || limitMs >= allowedMs(running.profile) || running.voteP99Ms <= limitMs) return null
  return `profile is to be ${next.profile}, which allows the witness ${limitMs} ms for a vote, and it takes ${Math.round(running.voteP99Ms)} ms (p99): use a nearer witness or a slower profile`
}

/** Programs and health checks are the operator's; units that the wish names run after them. */
function servicesOf(settings: PairSettings, base: Record<string, unknown>): ConfigInput['services'] {
  const own = Array.isArray(base.services) ? (base.services as NonNullable<ConfigInput['services']>) : []
  const known = (name: string, unit: string) => own.find(one => one.name === name && 'unit' in one && one.unit === unit)
  const units = settings.services.map(({ name, unit }) => known(name, unit) ?? { name, unit })
  return [...own.filter(one => !('unit' in one)), ...units]
}
