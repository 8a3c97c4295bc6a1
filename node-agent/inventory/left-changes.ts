import { isUnfinished } from '../network/change.ts'
import { endUnfinished } from '../network/change-process.ts'
import { lockFolder } from '../state-file/lock.ts'
import { isNameUnfinished } from '../storage/initiator-name.ts'
import { runUndo } from '../storage/name-change.ts'
import type { InventorySettings } from './settings.ts'

/** `under way`: somebody should look again soon. */
export type LeftChange = { state: 'none' | 'under way' } | { state: 'taken back' | 'stuck'; why: string }

/**
 * A change of networks or of the iSCSI name is taken back by its own process, or, where that was killed, by whoever waited
 * for it. Where both have ended, with their terminal, the power, or for want of memory, it is left to whoever looks at the
 * host next: its journal stands, and nobody holds the lock that its process held.
 */
export async function endLeftChanges(settings: InventorySettings): Promise<LeftChange> {
  const { networkFolder, storageFolder, configPath } = settings
  const [network, name] = await Promise.all([
    endLeft(networkFolder, {
      isLeft: isUnfinished(networkFolder),
      what: 'a change of the networks',
      end: () => endUnfinished(configPath),
    }),
    endLeft(storageFolder, {
      isLeft: isNameUnfinished(storageFolder),
      what: 'a change of the iSCSI name',
      end: async () => {
        const undone = await atMost(nameLimitMs, runUndo({ folder: storageFolder, socket: null }))
        return undone === null ? null : { ok: undone.whole, why: undone.why }
      },
    }),
  ])
  return worse(network, name)
}
/** Shorter than a look may take, so that it says why: portals that do not answer take half a minute each. */
const nameLimitMs = 45_000

async function endLeft(
  folder: string,
  part: { isLeft: boolean; what: string; end: () => Promise<{ ok: boolean; why: string } | null> },
): Promise<LeftChange> {
  if (!part.isLeft) return { state: 'none' }
  const locked = lockFolder(folder)
  if (!locked.ok) return { state: 'under way' }
  locked.lock.release()
  // In a process of its own, which outlives a look that takes too long.
  const outcome = await part.end()
  if (outcome?.ok === true) return { state: 'taken back', why: outcome.why }
  const why = outcome?.why ?? 'its process has not said anything yet, or ended without a word'
  return { state: 'stuck', why: `${part.what} was left half-way and could not be taken back: ${why}` }
}

const order = ['none', 'under way', 'taken back', 'stuck'] as const

function worse(one: LeftChange, other: LeftChange): LeftChange {
  const [less, more] = order.indexOf(one.state) <= order.indexOf(other.state) ? [one, other] : [other, one]
  return 'why' in less && 'why' in more ? { ...more, why: `${more.why}; ${less.why}` } : more
}

async function atMost<T>(ms: number, work: Promise<T>): Promise<T | null> {
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<null>(resolve => {
    timer = setTimeout(() => resolve(null), ms)
  })
  return Promise.race([work, late]).finally(() => clearTimeout(timer))
}
