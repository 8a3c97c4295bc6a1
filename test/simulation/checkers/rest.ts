import { restsUntil } from '../../../shared/protocol/rest.ts'
import type { HostState } from '../../../shared/protocol/state.ts'
import type { DataNode } from '../../../shared/protocol/types.ts'
import { type MakeChecker, Violation } from './check.ts'

/**
 * The agent leaves out the ticks that fall into a rest (shared/protocol/rest.ts). Here all of them are taken: one within
 * a rest must have no effect and change nothing, so a run without it is the same run.
 */
export const restIsIdle: MakeChecker = pair => {
  const until: { [node in DataNode]: number } = { a: 0, b: 0 }
  return {
    name: 'rest',
    step: (host, before, after, event, effects) => {
      const { node } = host
      if (event.event === 'tick' && event.now < until[node]) {
        pair.count(after.gate.set === 'open' ? 'rest of the primary' : 'rest of the backup')
        const changed = changedPart(before, after)
        if (effects.length > 0 || changed !== null) {
          const did = effects.map(effect => effect.do).join(', ') || `changed ${changed}`
          const early = (until[node] - event.now).toFixed(1)
          throw new Violation('rest', `${node} was at rest for ${early} ms more, and a tick did something: ${did}`)
        }
      }
      until[node] = restsUntil(after, event.now)
    },
  }
}

/** The first part of the state that is not as it was; parts are replaced, not changed, so two levels tell. */
function changedPart(before: HostState, after: HostState): string | null {
  for (const key of Object.keys(after) as (keyof HostState)[]) {
    const [was, is] = [before[key], after[key]]
    if (was === is) continue
    if (typeof was !== 'object' || typeof is !== 'object' || was === null || is === null) return key
    for (const [name, value] of Object.entries(is)) {
      if ((was as Record<string, unknown>)[name] !== value) return `${key}.${name}`
    }
  }
  return null
}
