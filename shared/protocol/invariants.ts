import { assert } from '../assert.ts'
import { isOlder } from './facts.ts'
import type { HostState } from './state.ts'
import type { Turn } from './turn.ts'
import type { Durable, Message, Value } from './types.ts'

/**
 * What must hold after every step on one host, in production too: a violation ends the process, and the kernel shuts
 * the gate. What needs the sight of all members is checked in simulation and search.
 */
export function checkInvariants(before: HostState, turn: Turn): void {
  const { s } = turn
  if (before.durable === s.durable && before.gate === s.gate) return
  const was = before.durable
  const is = s.durable
  if (before.started) {
    assert(is.inc === was.inc, 'the incarnation of a store never changes')
    assert(is.promised >= was.promised, `promised went back from ${was.promised} to ${is.promised}`)
    assert((is.acc?.ballot ?? 0) >= (was.acc?.ballot ?? 0), 'the accepted ballot went back')
    assert(is.lastOwn >= was.lastOwn, 'lastOwn went back')
    monotonic('known', was.known?.value ?? null, is.known?.value ?? null)
  }
  const accBallot = is.acc?.ballot ?? 0
  assert(accBallot <= Math.max(is.promised, is.known?.ballot ?? 0), 'accepted above what was promised or committed')
  if (s.gate.set === 'open') {
    assert(is.acc?.value.primary === s.node, `the gate is open although ${is.acc?.value.primary} is named`)
    assert(s.vacate === null, 'the gate is open although the place is being given up')
  }
}

function monotonic(name: string, was: Value | null, is: Value | null): void {
  if (was === null) return
  assert(is !== null, `${name} was forgotten`)
  assert(!isOlder(is, was), `${name} went back from version ${was.version} to ${is.version}`)
}

/**
 * I9, of one store: what a message says of the register lies on the disk of whoever says it. A sentence that says what is
 * missing, or null. A learn is another matter: it lies on the disks of a quorum.
 */
export function notOnDisk(disk: Durable, message: Message): string | null {
  const missing = (is: number, said: number): string | null =>
    is >= said ? null : `sends ${message.kind} ${said}, but ${is} is on its disk`
  switch (message.kind) {
    case 'promise':
      return missing(disk.promised, message.ballot)
    case 'accepted':
    case 'accept':
      return missing(disk.acc?.ballot ?? 0, message.ballot)
    case 'prepare':
    case 'cas':
      return missing(Math.min(disk.lastOwn, disk.promised), message.ballot)
    case 'resign':
      return disk.resigned === message.version ? null : 'resigns before it is on its disk'
    default:
      return null
  }
}

/** I8, of one store over its writes: no promise of an acceptor is broken. A sentence that says which, or null. */
export function brokenPromise(before: Durable, after: Durable): string | null {
  const was = before.acc?.ballot ?? 0
  const is = after.acc?.ballot ?? 0
  const isLearned = after.known?.ballot === is
  if (after.promised < before.promised) return `promised went back from ${before.promised} to ${after.promised} on disk`
  if (is < was) return `the accepted ballot went back from ${was} to ${is} on disk`
  if (is !== was && is < before.promised && !isLearned) return `accepted ${is} after it had promised ${before.promised}`
  return null
}
