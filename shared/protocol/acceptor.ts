import { unreachable } from '../assert.ts'
import type { AcceptorState, Incarnation, RegisterReply, RegisterRequest, Value } from './types.ts'

/**
 * The acceptor of the register, the same on all three members: one durable (promised, accepted) pair.
 * The intuition is Paxos for one register with changing members (Rystsov, "CASPaxos: Replicated State Machines without
 * logs", 2018): a promise stops lower ballots, an acceptance keeps a value for whoever prepares next.
 *
 * `reply: null` means that this store has no vote on the request: nothing is answered.
 * The caller persists `state` before it sends `reply` whenever `changed`.
 */
export interface AcceptorResult<S> {
  state: S
  changed: boolean
  reply: RegisterReply | null
}

export function accept<S extends AcceptorState>(state: S, request: RegisterRequest): AcceptorResult<S> {
  if (request.inc !== state.inc) return silent(state)
  switch (request.kind) {
    case 'read':
      if (state.acc === null) return silent(state)
      return reply(state, { kind: 'state', req: request.req, inc: state.inc, promised: state.promised, acc: state.acc })
    case 'prepare':
      return prepare(state, request)
    case 'accept':
      return acceptValue(state, request)
    case 'cas':
      return compareAndSet(state, request)
    default:
      return unreachable(request)
  }
}

function prepare<S extends AcceptorState>(state: S, request: RegisterRequest & { kind: 'prepare' }): AcceptorResult<S> {
  if (state.acc === null) return silent(state)
  const { req, ballot } = request
  if (ballot < state.promised) return nack(state, request)
  const promise = { kind: 'promise', req, inc: state.inc, ballot, acc: state.acc } as const
  // The same ballot again is the same proposer repeating itself: the same answer.
  return ballot === state.promised ? reply(state, promise) : change({ ...state, promised: ballot }, promise)
}

function acceptValue<S extends AcceptorState>(
  state: S,
  request: RegisterRequest & { kind: 'accept' },
): AcceptorResult<S> {
  const { req, ballot, value } = request
  // An empty store may only be filled by the value that admits it: otherwise a wiped member would vote.
  if (state.acc === null && !admits(value, state.inc)) return silent(state)
  if (ballot < state.promised || ballot < (state.acc?.ballot ?? 0)) return nack(state, request)
  const accepted = { kind: 'accepted', req, inc: state.inc, ballot } as const
  if (state.acc?.ballot === ballot && state.promised === ballot) return reply(state, accepted)
  return change({ ...state, promised: ballot, acc: { ballot, value } }, accepted)
}

/** Prepare and accept of one proposer in one trip; used towards W only. */
function compareAndSet<S extends AcceptorState>(
  state: S,
  request: RegisterRequest & { kind: 'cas' },
): AcceptorResult<S> {
  if (state.acc === null) return silent(state)
  const { req, ballot, expect, value } = request
  const accepted = { kind: 'accepted', req, inc: state.inc, ballot } as const
  if (state.acc.ballot === ballot) return reply(state, accepted)
  if (ballot < state.promised) return nack(state, request)
  if (ballot > state.promised && state.acc.ballot === expect) {
    return change({ ...state, promised: ballot, acc: { ballot, value } }, accepted)
  }
  const promise = { kind: 'promise', req, inc: state.inc, ballot, acc: state.acc } as const
  return ballot === state.promised ? reply(state, promise) : change({ ...state, promised: ballot }, promise)
}

const admits = (value: Value, inc: Incarnation): boolean =>
  value.voters.a === inc || value.voters.b === inc || value.voters.w === inc

const silent = <S>(state: S): AcceptorResult<S> => ({ state, changed: false, reply: null })
const reply = <S>(state: S, answer: RegisterReply): AcceptorResult<S> => ({ state, changed: false, reply: answer })
const change = <S>(state: S, answer: RegisterReply): AcceptorResult<S> => ({ state, changed: true, reply: answer })

function nack<S extends AcceptorState>(state: S, request: { req: number; ballot: number }): AcceptorResult<S> {
  return reply(state, {
    kind: 'nack',
    req: request.req,
    inc: state.inc,
    ballot: request.ballot,
    promised: state.promised,
  })
}
