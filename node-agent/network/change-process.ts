import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { setTimeout as sleep } from 'node:timers/promises'
import { z } from 'zod'
import { type Config, confirmSecondsMax } from '../config.ts'
import { identityFileOf } from '../control/core-side.ts'
import { readIdentity } from '../control/identity.ts'
import { exec } from '../exec.ts'
import { type BaseConfig, loadHost } from '../host-file.ts'
import { readBootId } from '../kernel/clock.ts'
import type { StatusReport } from '../report/status-report.ts'
import { ask } from '../socket/client.ts'
import { runApart } from '../workers/apart.ts'
import { vswitchSchema } from './record.ts'
import { changeVswitch, type Outcome, type Undo, type VswitchParts, type Wish } from './vswitches.ts'

/**
 * A change of the network runs in a process and a session of its own: the terminal from which it was asked for may be
 * what the change cuts off, and whoever has to take it back must not end with it.
 */

export const changeVerb = 'network-change'
const requestSchema = z.strictObject({
  config: z.string(),
  wish: z.union([
    z.strictObject({ set: vswitchSchema }),
    z.strictObject({ remove: z.string() }),
    z.strictObject({ undo: z.literal('unfinished') }),
  ]),
})
const outcomeSchema = z.strictObject({ ok: z.boolean(), why: z.string() })

/** The longest confirmation that can be configured, the steps and their way back, each at its longest. */
const processLimitMs = 1000 * confirmSecondsMax + 180_000

/** Starts the process and waits for what it says; one that is killed is followed by one that takes the change back. */
export async function runChange(config: string, wish: Wish): Promise<Outcome> {
  const outcome = await runProcess(config, wish)
  if (outcome !== null) return outcome
  const after = await endUnfinished(config)
  const why = 'the process of the change ended without a word'
  if (after?.ok === true) return { ok: false, why: `${why}; ${after.why}` }
  return { ok: false, why: `${why}; ${after?.why ?? 'nor could it be taken back'}: look at the host` }
}

/** Takes back what a process that has ended left half-way. @returns null where that can't be said either */
export const endUnfinished = (config: string): Promise<Outcome | null> => runProcess(config, { undo: 'unfinished' })

async function runProcess(config: string, wish: Wish | Undo): Promise<Outcome | null> {
  const request = { config, wish } satisfies z.input<typeof requestSchema>
  const outcome = outcomeSchema.safeParse(await runApart(changeVerb, { request, limitMs: processLimitMs }))
  return outcome.success ? outcome.data : null
}

/** The process itself. Its reader may be gone by the time it has something to say. */
export async function changeProcess(): Promise<void> {
  process.on('SIGHUP', () => {})
  process.stdout.on('error', () => {})
  const said = await text(process.stdin)
  process.stdout.write(`${JSON.stringify(await changed(said))}\n`)
}

/** Never throws: whoever asked is told. */
async function changed(said: string): Promise<Outcome> {
  try {
    const { config, wish } = requestSchema.parse(JSON.parse(said))
    return await changeVswitch(partsOf(loadNetworks(config)), wish)
  } catch (error) {
    const why =
      error instanceof z.ZodError ? z.prettifyError(error) : error instanceof Error ? error.message : `${error}`
    return { ok: false, why: `${why}; nothing was changed` }
  }
}

/** What of a host's configuration its networks are changed and looked at by. */
export type NetworkConfig = BaseConfig & Pick<Config, 'vips'> & { peer: { paths: Config['peer']['paths'] } }

/** A host that waits for its pair has networks too, and nothing that they are held against. @throws ConfigError */
export function loadNetworks(path: string): NetworkConfig {
  const { base, config } = loadHost(path)
  return config ?? ofWaiting(base)
}

export const ofWaiting = (base: BaseConfig): NetworkConfig => ({ ...base, vips: [], peer: { paths: [] } })

export function partsOf(config: NetworkConfig): VswitchParts {
  return {
    folder: join(config.stateDir, 'network'),
    boot: readBootId(config.bootIdPath),
    root: '/',
    ask: (argv, limitMs) => exec(argv, { limitMs }),
    reach: reachOf(config),
    sleep: ms => sleep(ms),
    // Whoever looks around now sees a change under way, and looks after it.
    begun: () => void ask({ path: config.socket, verb: 'lookAround', silenceMs: answerLimitMs }).catch(() => {}),
    confirmMs: config.network.confirmSeconds * 1000,
    ovsDatapath: config.network.ovsDatapath,
    pair: {
      peerAddresses: config.peer.paths.map(path => path.peer),
      vips: config.vips.map(vip => ({ address: vip.address, vswitch: vip.interface })),
      pathAddresses: config.peer.paths.map(path => path.local),
    },
  }
}

/** A peer heard within this time is reached: heartbeats come several times a second. */
const heardMs = 2000
const answerLimitMs = 1000

const within = (agoMs: number | null, limitMs: number): boolean => agoMs !== null && agoMs < limitMs

/** What the agent reaches, and the control plane; without an agent nothing is known to be reached, and nothing can be missed. */
function reachOf(config: NetworkConfig): VswitchParts['reach'] {
  let plane: Answers | null | undefined
  return async withinMs => {
    if (plane === undefined) plane = answersOf(config)
    const controlPlane = plane === null ? null : await plane.within(withinMs)
    try {
      const status = (await ask({ path: config.socket, verb: 'status', silenceMs: answerLimitMs })) as StatusReport
      return {
        peer: within(status.peer.heardAgoMs, Math.min(withinMs, heardMs)),
        witness: within(status.witness?.answeredAgoMs ?? null, withinMs),
        controlPlane,
      }
    } catch {
      return { peer: false, witness: false, controlPlane }
    }
  }
}

/** null: this host is known to no control plane. */
function answersOf({ stateDir }: Pick<Config, 'stateDir'>): Answers | null {
  const identity = readIdentity(identityFileOf(stateDir))
  return identity === null ? null : new Answers(identity.url)
}

/** Whether the control plane answers: asked again and again, and only the first asking is waited for. */
class Answers {
  readonly #url: string
  #asking = false
  #first = true
  /** When the newest question that was answered was sent. */
  #askedAtMs = -Infinity

  constructor(url: string) {
    this.#url = url
  }

  async within(ms: number): Promise<boolean> {
    const asked = this.#ask()
    if (this.#first) await asked
    this.#first = false
    return performance.now() - this.#askedAtMs < ms
  }

  async #ask(): Promise<void> {
    if (this.#asking) return
    this.#asking = true
    const sentAtMs = performance.now()
    try {
      const answer = await fetch(`${this.#url}/agent/v1/time`, {
        redirect: 'error',
        signal: AbortSignal.timeout(planeLimitMs),
      })
      await answer.arrayBuffer()
      if (answer.ok) this.#askedAtMs = sentAtMs
    } catch {
      // No answer is an answer here.
    } finally {
      this.#asking = false
    }
  }
}
const planeLimitMs = 2000
