import type { DesiredDocument, PairSettings } from '../../shared/contract/api/settings.ts'
import { sha256Hex } from '../../shared/contract/signing.ts'
import type { WishedField, WishedFields } from '../applied-wish.ts'
import type { Config, ConfigInput } from '../config.ts'

/** A wish as parts of this host's configuration. Pure: what is refused is refused here, with its reason. */
export type PairWish = NonNullable<DesiredDocument['pair']>

export const settingsHash = (settings: PairSettings): Promise<string> => sha256Hex(JSON.stringify(settings))

/** Which parts of the configuration follow from which settings: a setting that did not change leaves them alone. */
const partsOf: Record<keyof PairSettings, readonly WishedField[]> = {
  profile: ['profile'],
  vips: ['vips'],
  protectedPorts: ['protectedPorts'],
  arbitration: ['witness'],
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
  const witness = witnessOf(wish)
  if (!witness.ok) return witness
  const there = settings.hosts[node === 'a' ? 'b' : 'a'].addresses
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
    witness: witness.value,
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
  if (before.profile !== after.profile)
    return `the profile is ${before.profile}: lease and promise of both hosts have to change in one instant, so it can't be changed to ${after.profile} while the pair runs. Unpair and set up again`
  if (JSON.stringify(before.witness) !== JSON.stringify(after.witness))
    return 'another witness has to be admitted by the pair, which this version does not do from afar'
  const same = (one: Config['peer']['paths'][number]): boolean =>
    after.peer.paths.some(other => JSON.stringify(other) === JSON.stringify(one))
  if (!before.peer.paths.some(same))
    return 'no path between the hosts would stay as it is: they would lose each other while one has the new addresses and the other not yet. Change one path at a time'
  return null
}

function witnessOf({
  settings: {
    arbitration: { witness },
  },
  hostedWitness,
}: PairWish): { ok: true; value: ConfigInput['witness'] } | { ok: false; why: string } {
  switch (witness.kind) {
    case 'none':
      return { ok: true, value: null }
    case 'own':
      return { ok: true, value: { url: witness.url, fingerprint: witness.fingerprint } }
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

/** Programs and health checks are the operator's; units that the wish names run after them. */
function servicesOf(settings: PairSettings, base: Record<string, unknown>): ConfigInput['services'] {
  const own = Array.isArray(base.services) ? (base.services as NonNullable<ConfigInput['services']>) : []
  const known = (name: string, unit: string) => own.find(one => one.name === name && 'unit' in one && one.unit === unit)
  const units = settings.services.map(({ name, unit }) => known(name, unit) ?? { name, unit })
  return [...own.filter(one => !('unit' in one)), ...units]
}
