import { mkdirSync } from 'node:fs'
import { text } from 'node:stream/consumers'
import type { z } from 'zod'
import { Looker } from '../inventory/looker.ts'
import { ask } from '../socket/client.ts'
import { lockFolder } from '../state-file/lock.ts'
import {
  changeInitiatorName,
  endUnfinishedName,
  isNameUnfinished,
  type NameChange,
  type NameChangeResult,
  type NameParts,
} from './initiator-name.ts'
import { iscsiHost } from './iscsi-host.ts'
import { requestSchema, type undoneSchema } from './name-change.ts'
import { Sysfs } from './sysfs.ts'

/** The process itself. Its reader may be gone by the time it has something to say. */
export async function nameChangeProcess(): Promise<void> {
  process.on('SIGHUP', () => {})
  process.stdout.on('error', () => {})
  const { folder, socket, root, wish } = requestSchema.parse(JSON.parse(await text(process.stdin)))
  // Each look at who uses a device is a process with a time limit.
  const looker = new Looker({ settings: { networkFolder: '', storageFolder: folder, vips: [], configPath: '' }, root })
  const host = iscsiHost(new Sysfs(root), () => looker.sessionUsers())
  // Whoever looks around now sees a change under way, and looks after it.
  const begun = (): void =>
    void (socket === null ? null : ask({ path: socket, verb: 'lookAround', silenceMs: 1000 }).catch(() => {}))
  const parts: NameParts = { host, folder, begun }
  const result = 'undo' in wish ? await undoUnfinished(parts) : await changeLocked(parts, wish)
  process.stdout.write(`${JSON.stringify(result)}\n`)
}

/** What was left half-way is ended first. */
export async function changeLocked(parts: NameParts, wish: NameChange): Promise<NameChangeResult> {
  const { folder } = parts
  const failed = (why: string): NameChangeResult => ({ ok: false, begun: false, why })
  return locked(folder, {
    busy: failed,
    work: async () => {
      const undone = await endUnfinishedName(parts)
      if (undone?.whole === false) return failed(undone.why)
      const result = await changeInitiatorName(parts, wish)
      return undone === null ? result : { ...result, why: `${undone.why}; ${result.why}` }
    },
    // What can't be read, ours or the host's. Whatever was begun is taken back here: nobody else knows that it ended.
    thrown: async why => {
      if (!isNameUnfinished(folder)) return failed(why)
      const undone = await endUnfinishedName(parts).catch(messageOf)
      const more = typeof undone === 'string' || undone === null ? undone : undone.why
      return { ok: false, begun: true, why: more === null || more === why ? why : `${why}; ${more}` }
    },
  })
}

export const undoUnfinished = (parts: NameParts): Promise<z.output<typeof undoneSchema>> =>
  locked(parts.folder, {
    busy: why => ({ whole: false, why }),
    work: async () => (await endUnfinishedName(parts)) ?? { whole: true, why: 'no change was under way' },
    thrown: async why => ({ whole: false, why }),
  })

async function locked<T>(
  folder: string,
  part: { busy: (why: string) => T; work: () => Promise<T>; thrown: (why: string) => Promise<T> },
): Promise<T> {
  let release = (): void => {}
  try {
    mkdirSync(folder, { recursive: true, mode: 0o700 })
    const lock = lockFolder(folder)
    if (!lock.ok) return part.busy(`another change of the iSCSI name is under way: ${lock.why}`)
    release = () => lock.lock.release()
    return await part.work()
  } catch (error) {
    return await part.thrown(messageOf(error))
  } finally {
    release()
  }
}

const messageOf = (error: unknown): string => (error instanceof Error ? error.message : String(error))
