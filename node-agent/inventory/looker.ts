import { spawn } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { z } from 'zod'
import { hostSummary } from '../../shared/contract/host-summary.ts'
import type { HostNetwork } from '../../shared/hosts/network.ts'
import type { StorageInventory } from '../../shared/hosts/storage.ts'
import { takeEndCalmly } from '../kernel/child-end.ts'
import { bundledChild } from '../self.ts'
import type { SessionUse } from '../storage/session-users.ts'
import type { LeftChange } from './left-changes.ts'
import { type LookRequest, lookVerb } from './look-process.ts'
import { type InventorySettings, inventoryNewsSchema } from './settings.ts'

/**
 * Looks at networks and storage, each time in a process of its own with a time limit: a read of sysfs can hang as long as
 * its driver does, past a SIGKILL too. So nobody waits for such a process to end, and few of them are ever there.
 */
const limitMs = 60_000
const hangingMax = 2
/** Thousands of disks are some megabytes. */
const answerBytesMax = 64 * 2 ** 20

// They come from this same program, which made them by these types.
const network = z.custom<HostNetwork>(value => typeof value === 'object' && value !== null)
const storage = z.custom<StorageInventory>(value => typeof value === 'object' && value !== null)

const newsSchema = z.object({
  news: inventoryNewsSchema,
  change: z.discriminatedUnion('state', [
    z.object({ state: z.enum(['none', 'under way']) }),
    z.object({ state: z.enum(['taken back', 'stuck']), why: z.string() }),
  ]) satisfies z.ZodType<LeftChange>,
})
const usesSchema = z.array(z.object({ session: z.string(), what: z.string() })) satisfies z.ZodType<SessionUse[]>
const hostSchema = z.object({ summary: hostSummary, network, storage })

export interface LookerOptions {
  settings: InventorySettings
  root?: string
  /** Instead of this program, and of its time; for tests. */
  program?: { command: string; args: readonly string[] }
  limitMs?: number
}

/** Each look may fail with a sentence. */
export class Looker {
  readonly #options: LookerOptions
  #hanging = 0

  constructor(options: LookerOptions) {
    this.#options = options
  }

  news(): Promise<z.output<typeof newsSchema>> {
    return this.#look('news', newsSchema)
  }

  host(): Promise<z.output<typeof hostSchema>> {
    return this.#look('host', hostSchema)
  }

  storage(): Promise<StorageInventory> {
    return this.#look('storage', storage)
  }

  sessionUsers(): Promise<SessionUse[]> {
    return this.#look('session users', usesSchema)
  }

  async #look<S extends z.ZodType>(what: LookRequest['what'], schema: S): Promise<z.output<S>> {
    const said = await this.#ask(what).catch((error: Error) => {
      throw new Error(`networks and storage of this host could not be looked at: ${error.message}`)
    })
    const answer = schema.safeParse(parsed(said))
    if (answer.success) return answer.data
    throw new Error(
      `networks and storage of this host could not be looked at: ${said.slice(0, 200) || 'the process said nothing'}`,
    )
  }

  #ask(what: LookRequest['what']): Promise<string> {
    const { settings, root = '/', program = programHere(), limitMs: ownMs = limitMs } = this.#options
    if (this.#hanging >= hangingMax)
      return Promise.reject(new Error(`${this.#hanging} looks still hang in a driver, so no other one is begun`))
    return new Promise((resolve, reject) => {
      const child = spawn(program.command, program.args, { stdio: ['pipe', 'pipe', 'ignore'] })
      // Before anything else: without a descriptor left it has no pipes, and says so by this alone.
      child.once('error', error => {
        clearTimeout(timer)
        reject(error)
      })
      takeEndCalmly(child)
      const said: Buffer[] = []
      let bytes = 0
      const giveUp = (why: string): void => {
        clearTimeout(timer)
        this.#hanging += 1
        child.once('exit', () => {
          this.#hanging -= 1
        })
        child.kill('SIGKILL')
        child.stdout?.destroy()
        child.unref()
        reject(new Error(why))
      }
      const timer = setTimeout(
        () => giveUp(`the process did not end within ${ownMs} ms: a driver hangs, or this host is starved`),
        ownMs,
      )
      child.stdin?.on('error', () => {})
      child.stdin?.end(JSON.stringify({ settings, what, root } satisfies LookRequest))
      child.stdout?.on('data', (chunk: Buffer) => {
        bytes += chunk.length
        said.push(chunk)
        if (bytes > answerBytesMax) giveUp(`its answer has more than ${answerBytesMax} bytes`)
      })
      child.stdout?.once('end', () => {
        clearTimeout(timer)
        resolve(Buffer.concat(said).toString())
      })
    })
  }
}

function programHere(): { command: string; args: readonly string[] } {
  const bundled = bundledChild(lookVerb)
  const source = fileURLToPath(new URL('../cli/main.ts', import.meta.url))
  return bundled ?? { command: process.execPath, args: ['--disable-warning=ExperimentalWarning', source, lookVerb] }
}

function parsed(said: string): unknown {
  try {
    return JSON.parse(said)
  } catch {
    return null
  }
}
