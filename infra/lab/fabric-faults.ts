/**
 * What can be wrong with the lab's network, as plain data, and the ruleset of the fabric's namespace that makes it so.
 * The whole table is replaced in one transaction: there is no instant between two faults at which neither holds.
 */

import { type LinkName, MEMBERS, type Member, portName } from './addresses.ts'

/** One direction of one link. */
export interface Direction {
  from: Member
  to: Member
  link: LinkName
}

export interface Loss extends Direction {
  /** 0–1000. */
  perMille: number
}

export interface Slowness extends Direction {
  delayMs: number
  /** Each frame's delay is uniform in delayMs ± jitterMs; frames overtake each other where this is above 0. */
  jitterMs: number
  duplicatePerMille: number
}

export interface FabricFaults {
  cuts: Direction[]
  /** Members from which nothing gets out, on any link. */
  mute: Member[]
  /** Members to which nothing gets through, on any link. */
  deaf: Member[]
  loss: Loss[]
  slow: Slowness[]
}

export function noFabricFaults(): FabricFaults {
  return { cuts: [], mute: [], deaf: [], loss: [], slow: [] }
}

export function sameDirection(one: Direction, other: Direction): boolean {
  return one.from === other.from && one.to === other.to && one.link === other.link
}

/** Both directions of every link between two members; with `link`, of that link alone. */
export function directionsBetween(one: Member, other: Member, link?: LinkName): Direction[] {
  const links = (['lan', 'peer'] as const).filter(candidate => link === undefined || candidate === link)
  return links
    .filter(candidate => candidate === 'lan' || (isOnCable(one) && isOnCable(other)))
    .flatMap(candidate => [
      { from: one, to: other, link: candidate },
      { from: other, to: one, link: candidate },
    ])
}

function isOnCable(member: Member): boolean {
  return member === 'a' || member === 'b'
}

/** Directions a slow wire must carry: what is cut anyway needs none. */
export function slowDirections(faults: FabricFaults): Slowness[] {
  return faults.slow.filter(
    slow =>
      !faults.mute.includes(slow.from) &&
      !faults.deaf.includes(slow.to) &&
      !faults.cuts.some(cut => sameDirection(cut, slow)),
  )
}

export function lossOn(faults: FabricFaults, direction: Direction): number {
  return faults.loss.find(loss => sameDirection(loss, direction))?.perMille ?? 0
}

function ports(members: readonly Member[]): string {
  const names = members.flatMap(member => [
    portName(member, 'lan'),
    ...(isOnCable(member) ? [portName(member, 'peer')] : []),
  ])
  return names.map(name => `"${name}"`).join(', ')
}

function pair(direction: Direction): string {
  return `iifname "${portName(direction.from, direction.link)}" oifname "${portName(direction.to, direction.link)}"`
}

/** The text for `nft -f -` in the fabric's namespace. */
export function fabricRuleset(faults: FabricFaults): string {
  // A slow direction is carried by the wire process, so the bridge itself must not.
  const dropped = [...faults.cuts, ...faults.slow].map(direction => `    ${pair(direction)} drop`)
  const lossy = faults.loss
    .filter(loss => loss.perMille > 0)
    .map(loss => `    ${pair(loss)} numgen random mod 1000 < ${loss.perMille} drop`)
  const mute = faults.mute.length > 0 ? [`    iifname { ${ports(faults.mute)} } drop`] : []
  const deaf = faults.deaf.length > 0 ? [`    oifname { ${ports(faults.deaf)} } drop`] : []
  return [
    'table bridge lab',
    'delete table bridge lab',
    'table bridge lab {',
    '  chain before {',
    '    type filter hook prerouting priority 0; policy accept;',
    ...mute,
    '  }',
    '  chain between {',
    '    type filter hook forward priority 0; policy accept;',
    ...dropped,
    ...lossy,
    '  }',
    '  chain after {',
    '    type filter hook postrouting priority 0; policy accept;',
    ...deaf,
    '  }',
    '}',
    '',
  ].join('\n')
}

/** One line for each fault, for people. */
export function describeFabricFaults(faults: FabricFaults): string[] {
  const name = ({ from, to, link }: Direction) => `${from} → ${to} on ${link}`
  const order = (members: Member[]) => MEMBERS.filter(member => members.includes(member))
  return [
    ...faults.cuts.map(cut => `cut: ${name(cut)}`),
    ...order(faults.mute).map(member => `nothing gets out of ${member}`),
    ...order(faults.deaf).map(member => `nothing gets to ${member}`),
    ...faults.loss.map(loss => `${loss.perMille / 10} % of frames lost: ${name(loss)}`),
    ...faults.slow.map(slow => `${slow.delayMs} ± ${slow.jitterMs} ms late: ${name(slow)}`),
  ]
}
