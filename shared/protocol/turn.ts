import type { HostState } from './state.ts'
import type { Durable, Effect, Event, Message, NodeId } from './types.ts'

/**
 * One step in the making: a draft of the next state and the effects so far. Handlers replace nested objects of `s`
 * and never change them in place, so the state that came in stays as it was.
 */
export interface Turn {
  s: HostState
  now: number
  random: number
  effects: Effect[]
  why: string[]
}

export const beginTurn = (state: HostState, event: Event): Turn => ({
  s: { ...state },
  now: event.now,
  random: event.random,
  effects: [],
  why: [],
})

/** Changes the durable state and asks for it on disk before any later effect. Two writes without an effect between are one. */
export function persist(turn: Turn, change: Partial<Durable>): void {
  const { s } = turn
  s.durable = { ...s.durable, ...change }
  const last = turn.effects.at(-1)
  if (last?.do === 'persist') {
    last.durable = s.durable
    return
  }
  const seq = s.persist.seq + 1
  const pending = [...s.persist.pending, { seq, askedAt: turn.now }]
  s.persist = { ...s.persist, seq, pending, newestAt: turn.now }
  turn.effects.push({ do: 'persist', seq, durable: s.durable })
}

export function send(turn: Turn, to: NodeId, message: Message): void {
  turn.effects.push({ do: 'send', to, message })
}

export function say(turn: Turn, sentence: string): void {
  turn.why.push(sentence)
}

/** Says a standing reason once, until it changes; '' takes it back silently. */
export function sayStanding(turn: Turn, topic: string, sentence: string): void {
  if ((turn.s.duty.said[topic] ?? '') === sentence) return
  turn.s.duty = { ...turn.s.duty, said: { ...turn.s.duty.said, [topic]: sentence } }
  if (sentence !== '') turn.why.push(sentence)
}

/** Random between half and the whole, so that two hosts that collide part again. */
export const backoff = (turn: Turn, ms: number): number => turn.now + ms * (0.5 + turn.random / 2)
