import type { Turn } from './turn.ts'
import { say } from './turn.ts'
import type { DatabaseOp } from './types.ts'

/** The few effects that several rules ask for, each remembered in the state as it is asked. */

export function openGate(turn: Turn, until: number): void {
  const { s, now } = turn
  const seq = s.gate.seq + 1
  // The old grant stays in force until the kernel has answered, so the bound only ever falls on an answer.
  s.gate = {
    ...s.gate,
    seq,
    set: 'open',
    setAt: now,
    grantUntil: Math.max(s.gate.grantUntil, until),
    askedUntil: until,
  }
  turn.effects.push({ do: 'gate', seq, set: 'open', until })
}

export function closeGate(turn: Turn, why: string): void {
  shutGate(turn, 'closed', why)
}

export function freezeGate(turn: Turn, why: string): void {
  shutGate(turn, 'frozen', why)
}

function shutGate(turn: Turn, set: 'frozen' | 'closed', why: string): void {
  const { s, now } = turn
  if (s.gate.set === set) return
  const seq = s.gate.seq + 1
  if (s.gate.set !== 'untouched' || s.gate.report.state !== set) say(turn, `the gate is ${set}: ${why}`)
  s.gate = { ...s.gate, seq, set, setAt: now, grantUntil: 0, askedUntil: 0 }
  turn.effects.push({ do: 'gate', seq, set })
}

export function startDatabaseOp(turn: Turn, op: DatabaseOp): void {
  const { s, now } = turn
  const id = s.database.opSeq + 1
  s.database = { ...s.database, op: { id, op, startedAt: now }, opSeq: id }
  // From now on commits may be acknowledged alone: a Grow in the meantime would rest on a proof that is about to be void.
  if (op.op === 'syncNames' && op.set === 'empty') s.database = { ...s.database, barrier: null, passedBy: '' }
  turn.effects.push({ do: 'database', id, op })
}

/** Killing overtakes whatever the driver is at; everything proven of the database ends with it. */
export function killDatabase(turn: Turn): void {
  const { s } = turn
  if (s.database.op?.op.op === 'kill') return
  s.database = { ...s.database, barrier: null, passedBy: '', ran: false }
  startDatabaseOp(turn, { op: 'kill' })
}
