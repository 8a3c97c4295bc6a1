import type { Effect } from '../../shared/protocol/types.ts'

/** A crash that waits for its moment. */
export interface CrashPlan {
  /** 'persist', 'gate:open', 'send:ack', ... or '*'. */
  effect: string
  when: 'before' | 'during' | 'after'
  how: 'kill' | 'power'
  /** How many such effects still pass. */
  countdown: number
  happened: () => void
}

/** Effects that may always go at once. */
export const mayOvertake = (effect: Effect): boolean =>
  (effect.do === 'gate' && effect.set !== 'open') ||
  (effect.do === 'database' && effect.op.op === 'kill') ||
  (effect.do === 'send' &&
    (effect.message.kind === 'heartbeat' || effect.message.kind === 'ack' || effect.message.kind === 'read'))

export function effectKind(effect: Effect): string {
  switch (effect.do) {
    case 'send':
      return `send:${effect.message.kind}`
    case 'gate':
      return `gate:${effect.set}`
    case 'database':
      return `database:${effect.op.op}`
    case 'vip':
      return `vip:${effect.set}`
    case 'services':
      return `services:${effect.set}`
    default:
      return effect.do
  }
}
