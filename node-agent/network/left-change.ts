import { lockFolder } from '../state-file/lock.ts'
import { isUnfinished } from './change.ts'
import { endUnfinished } from './change-process.ts'

/** `under way`: somebody should look again soon. */
export type LeftChange = { state: 'none' | 'under way' } | { state: 'taken back' | 'stuck'; why: string }

/**
 * A change is taken back by its own process, or, where that was killed, by whoever waited for it. Where both have ended,
 * with their terminal or for want of memory, it is left to whoever looks at the host next: its journal stands, and nobody
 * holds the lock that its process held.
 */
export async function endLeftChange(part: { networkFolder: string; configPath: string }): Promise<LeftChange> {
  const { networkFolder, configPath } = part
  if (!isUnfinished(networkFolder)) return { state: 'none' }
  const locked = lockFolder(networkFolder)
  if (!locked.ok) return { state: 'under way' }
  locked.lock.release()
  // In a process of its own, which outlives a look that takes too long.
  const outcome = await endUnfinished(configPath)
  if (outcome?.ok === true) return { state: 'taken back', why: outcome.why }
  const why = outcome?.why ?? 'its process ended without a word'
  return { state: 'stuck', why: `a change of the networks was left half-way and could not be taken back: ${why}` }
}
