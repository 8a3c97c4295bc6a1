import { sameValue } from '../simulation/checkers/register-truth.ts'
import { type Flight, isUp, type Link, linkOf, type World } from './pair.ts'

/**
 * Datagrams under way, in no order. Losing one is never delivering it; to keep that finite, a channel holds the newest
 * few of a kind, and what could change nothing any more is taken out.
 */

/** Of one kind, between two members: the older ones are lost. */
const heldMax = { heartbeat: 1, ack: 2, learn: 1, resign: 1, vote: 2 } as const

const capacityOf = (kind: string): number =>
  kind === 'heartbeat' || kind === 'ack' || kind === 'learn' || kind === 'resign' ? heldMax[kind] : heldMax.vote

/** Puts a message on the wire of a draft. */
export function post(d: { net: readonly Flight[]; cuts: readonly Link[] }, sent: Omit<Flight, 'held'>): void {
  if (d.cuts.includes(linkOf(sent.from, sent.to))) return
  const flight = { ...sent, held: false }
  // The same again bears another request number; whether it is late is as before.
  const again = d.net.findIndex(one => same(one, flight))
  if (again >= 0) {
    d.net = d.net.with(again, { ...flight, held: d.net[again]!.held })
    return
  }
  const alike = d.net.filter(
    one => one.from === flight.from && one.to === flight.to && one.message.kind === flight.message.kind,
  )
  const lost = alike.length >= capacityOf(flight.message.kind) ? alike[0] : undefined
  d.net = [...d.net.filter(one => one !== lost), flight]
}

function same(x: Flight, y: Flight): boolean {
  if (x.from !== y.from || x.to !== y.to) return false
  const m = x.message
  const n = y.message
  if (m.kind !== n.kind) return false
  if ('ballot' in m && 'ballot' in n && m.ballot !== n.ballot) return false
  if ('value' in m && 'value' in n && !sameValue(m.value, n.value)) return false
  if ('seq' in m && 'seq' in n) return m.seq === n.seq && m.nonce === n.nonce
  if ('acc' in m && 'acc' in n) return m.acc?.ballot === n.acc?.ballot
  return true
}

/** What still matters of the messages under way: the rest could only be answered by a refusal nobody waits for. */
export const weed = (world: World): readonly Flight[] => {
  const kept = world.net.filter(flight => matters(world, flight))
  return kept.length === world.net.length ? world.net : kept
}

function matters(world: World, { from, to, message, sentAt }: Flight): boolean {
  const { hosts, witness, former } = world
  if (isProbe(world, { from, to, message })) return true
  const asked = 'inc' in message && message.inc === former?.inc ? former : witness
  const receiver = to === 'w' ? asked : hosts[to].disk
  if (to !== 'w' && !isUp(hosts[to])) return isRequest(message.kind) || message.kind === 'resign'
  switch (message.kind) {
    case 'prepare':
    case 'accept':
    case 'cas': {
      if (message.inc !== receiver.inc) return false
      const isOpen = from !== 'w' && isUp(hosts[from]) && hosts[from].core.round?.ballot === message.ballot
      return isOpen || (message.ballot >= receiver.promised && message.ballot > (receiver.acc?.ballot ?? 0))
    }
    case 'promise':
    case 'accepted':
    case 'nack':
      return to !== 'w' && hosts[to].core.round?.ballot === message.ballot
    case 'ack':
      // One that was overtaken by a later one counts for nothing.
      return to !== 'w' && hosts[to].core.nonce === message.nonce && sentAt >= hosts[to].core.lease.ackSentAt
    case 'learn':
      return to !== 'w' && message.ballot > (hosts[to].disk.known?.ballot ?? 0)
    case 'resign': {
      const known = to === 'w' ? undefined : hosts[to].disk.known?.value
      return known !== undefined && known.version <= message.version
    }
    case 'heartbeat':
    case 'read':
    case 'state':
      return true
  }
}

/** A question whose answer shows that the witness is there, or that answer. */
function isProbe({ hosts }: World, { from, to, message }: Pick<Flight, 'from' | 'to' | 'message'>): boolean {
  const node = from === 'w' ? to : from
  if ((from !== 'w' && to !== 'w') || node === 'w' || !('req' in message)) return false
  return isUp(hosts[node]) && message.req === hosts[node].core.witness.probeReq
}

const isRequest = (kind: string): boolean => kind === 'prepare' || kind === 'accept' || kind === 'cas'
