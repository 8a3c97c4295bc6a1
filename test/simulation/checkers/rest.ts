import { restsUntil } from '../../../shared/protocol/rest.ts'
import type { HostState } from '../../../shared/protocol/state.ts'
import type { DataNode } from '../../../shared/protocol/types.ts'
import { type MakeChecker, Violation } from './check.ts'

/**
 * The agent leaves out the ticks that fall into a rest (shared/protocol/rest.ts). Every fourth seed takes all of them: one
 * within a rest must have no effect and change nothing, so that a run without it is the same run.
 */
export const restIsIdle: MakeChecker = pair => {
  /** After the newest step that was not a tick within a rest: the agent asks then, and at the end of the rest again. */
  const asked: { [node in DataNode]: { state: HostState; at: number } | null } = { a: null, b: null }
  const until: { [node in DataNode]: number } = { a: 0, b: 0 }
  return {
    name: 'rest',
    step: (host, before, after, event, effects) => {
      const { node } = host
      if (event.event === 'tick') {
        const last = asked[node]
        if (last !== null) until[node] = restsUntil(last.state, last.at)
        asked[node] = null
        if (event.now < until[node]) {
          pair.count(after.gate.set === 'open' ? 'rest of the primary' : 'rest of the backup')
          const changed = changedPart(before, after)
          if (effects.length === 0 && changed === null) return
          const did = effects.map(effect => effect.do).join(', ') || `changed ${changed}`
          const early = (until[node] - event.now).toFixed(1)
          throw new Violation('rest', `${node} was at rest for ${early} ms more, and a tick did something: ${did}`)
        }
      }
      asked[node] = { state: after, at: event.now }
    },
  }
}

/** The first part of the state that is not as it was; parts are replaced, not changed, so two levels tell. */
function changedPart(before: HostState, after: HostState): string | null {
  for (const key in after) {
    const was: unknown = before[key as keyof HostState]
    const is: unknown = after[key as keyof HostState]
    if (was === is) continue
    if (typeof was !== 'object' || typeof is !== 'object' || was === null || is === null) return key
    for (const name in is) {
      if ((was as Record<string, unknown>)[name] !== (is as Record<string, unknown>)[name]) return `${key}.${name}`
    }
  }
  return null
}
