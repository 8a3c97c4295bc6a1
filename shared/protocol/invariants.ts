import { assert } from '../assert.ts'
import { isOlder } from './facts.ts'
import type { HostState } from './state.ts'
import type { Turn } from './turn.ts'
import type { Value } from './types.ts'

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
