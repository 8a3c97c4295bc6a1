import { join } from 'node:path'
import { z } from 'zod'
import type { Standing } from '../agent.ts'
import { softwareVersion } from '../version.ts'
import { standingTopic } from '../workers/definition.ts'
import type { Core, WorkerProgram } from '../workers/worker-process.ts'
import { coreOverSocket } from './core-over-socket.ts'
import { readIdentity } from './identity.ts'
import { ControlLink } from './link.ts'
import { type ControlSettings, controlSettingsSchema, controlTopic } from './settings.ts'

const standingSchema = z.object({
  role: z.enum(['primary', 'backup', 'not a member', 'unsettled']),
  epoch: z.int(),
  gen: z.int(),
  primary: z.enum(['a', 'b']).nullable(),
  serving: z.boolean(),
  protection: z.enum(['protected', 'serving but unprotected', 'not serving']),
}) satisfies z.ZodType<Standing>

/** `status` shows this often what the link knows. */
const reportEveryMs = 2_000

/** The link to the control plane in a process of its own: the core neither waits for it nor sees what it hears. */
export class ControlWorker implements WorkerProgram {
  #core: Core | null = null
  #link: ControlLink | null = null
  #standing: Standing | null = null
  #begun = false

  start(core: Core): void {
    this.#core = core
  }

  told(topic: string, body: unknown): void {
    if (topic === standingTopic) {
      this.#standing = standingSchema.parse(body)
      this.#link?.standing(this.#standing)
    }
    if (topic !== controlTopic || this.#begun) return
    this.#begun = true
    this.#begin(controlSettingsSchema.parse(body)).catch((error: unknown) => {
      const why = error instanceof Error ? error.message : String(error)
      this.#core?.tell('note', `the link does not run: ${why}`)
      this.#core?.report({ why })
    })
  }

  async stop(): Promise<void> {
    await this.#link?.close()
  }

  async #begin(settings: ControlSettings): Promise<void> {
    const identity = readIdentity(join(settings.folder, 'identity.json'))
    if (identity === null) throw new Error('this host is not enrolled')
    const agent = { version: softwareVersion, startedAt: new Date().toISOString() }
    const link = await ControlLink.open({
      identity,
      folder: settings.folder,
      host: {
        ...coreOverSocket(settings.socket, agent),
        apply: async () => ({ ok: false, why: 'this version of the agent applies no settings' }),
      },
      policy: { refuse: settings.refuse },
      nowMs: Date.now,
      random: Math.random,
      note: why => void this.#core?.tell('note', why),
      settled: () => {},
    })
    this.#link = link
    if (this.#standing !== null) link.standing(this.#standing)
    setInterval(() => this.#core?.report(link.state()), reportEveryMs)
    await link.start()
  }
}
