import type { DataNode } from '../../../shared/protocol/types.ts'
import { type MakeChecker, Violation } from './check.ts'

const windowMs = 1000
/** Durable writes, gate changes and database operations of one host in a second; a busy takeover makes about thirty. */
const actsMax = 200
const heartbeatsMax = 250

/**
 * A core never runs hot: whatever state it is in, it does not ask for the same things over and over without a pause. A
 * loop like that starves the heartbeat, wears out a disk and fills the log, and no safety property would notice it.
 */
export const calm: MakeChecker = pair => {
  const of: { [node in DataNode]: { acts: number; beats: number } } = {
    a: { acts: 0, beats: 0 },
    b: { acts: 0, beats: 0 },
  }
  let window = 0
  return {
    name: 'calm',
    step: (host, _before, _after, _event, effects) => {
      const is = Math.floor(pair.world.now / windowMs)
      if (is !== window) {
        window = is
        of.a = { acts: 0, beats: 0 }
        of.b = { acts: 0, beats: 0 }
      }
      const count = of[host.node]
      for (const effect of effects) {
        if (effect.do === 'persist' || effect.do === 'gate' || effect.do === 'database') count.acts++
        if (effect.do === 'send' && effect.message.kind === 'heartbeat') count.beats++
      }
      if (count.acts > actsMax || count.beats > heartbeatsMax) {
        throw new Violation(
          'calm',
          `${host.node} asked for ${count.acts} writes, gate changes and database operations and sent ${count.beats} heartbeats within ${windowMs} ms`,
        )
      }
    },
  }
}
