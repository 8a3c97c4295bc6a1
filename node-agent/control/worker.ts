import { networkInterfaces } from 'node:os'
import { join } from 'node:path'
import { z } from 'zod'
import { type Command, verbs } from '../../shared/contract/documents.ts'
import { summaryOf } from '../../shared/hosts/summary.ts'
import type { Standing } from '../agent.ts'
import { theirInitiatorName } from '../inventory/compared.ts'
import { newsOf } from '../inventory/look-process.ts'
import { readHost } from '../inventory/read-host.ts'
import { inventoryNewsTopic, inventoryTopic } from '../inventory/settings.ts'
import type { KeyAndCertificate } from '../keys/certificates.ts'
import { renewedCertificate } from '../pair/keys.ts'
import type { OwnSettings } from '../peer-news.ts'
import { preflight } from '../preflight.ts'
import { ask } from '../socket/client.ts'
import { storageInventory } from '../storage/inventory.ts'
import { Scanner } from '../storage/scan.ts'
import { Sysfs } from '../storage/sysfs.ts'
import { softwareVersion } from '../version.ts'
import { standingTopic } from '../workers/definition.ts'
import type { Core, WorkerProgram } from '../workers/worker-process.ts'
import { coreOverSocket } from './core-over-socket.ts'
import { relayLimitMs, relayVerb } from './core-side.ts'
import { measure } from './host-prechecks.ts'
import { HostSettings } from './host-settings.ts'
import { type HostVerbs, runHostVerb } from './host-verbs.ts'
import { type Identity, readIdentity } from './identity.ts'
import { KeyChange } from './key-change.ts'
import { ControlLink } from './link.ts'
import { Carrier, type RelayAnswer, type RelayRequest, relayAnswer } from './relay.ts'
import type { HostPort, RunOutcome } from './session.ts'
import { runSetUp } from './set-up-commands.ts'
import { type ControlSettings, controlSettingsSchema, controlTopic } from './settings.ts'
import type { PairWish } from './wished-config.ts'

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
/** Disks and paths tell nobody of a change. */
const lookEveryMs = 15_000
const askLimitMs = 5_000
/** A command may overtake the wish it belongs to. */
const wishLimitMs = 10_000

/** The link to the control plane in a process of its own: the core neither waits for it nor sees what it hears. */
export class ControlWorker implements WorkerProgram {
  #core: Core | null = null
  #link: ControlLink | null = null
  #carrier: Carrier | null = null
  #standing: Standing | null = null
  #begun = false
  #settings: ControlSettings | null = null
  #looking = false
  /** Of the inventory that was told last. */
  #digest = ''
  /** A set-up is over: the agent begins anew once its answer is out. */
  #restart: string | null = null

  start(core: Core): void {
    this.#core = core
  }

  told(topic: string, body: unknown): void {
    if (topic === standingTopic) {
      this.#standing = standingSchema.parse(body)
      this.#link?.standing(this.#standing)
    }
    if (topic === inventoryTopic) {
      // Its own news comes back to it.
      const { sha256 } = z.object({ sha256: z.string() }).parse(body)
      if (sha256 !== this.#digest) void this.#look(this.#settings)
    }
    if (topic !== controlTopic || this.#begun) return
    this.#begun = true
    this.#begin(controlSettingsSchema.parse(body)).catch((error: unknown) => {
      const why = error instanceof Error ? error.message : String(error)
      this.#core?.tell('note', `the link does not run: ${why}`)
      this.#core?.report({ why })
    })
  }

  asked(verb: string, body: unknown): unknown {
    if (verb !== relayVerb) throw new Error(`the link to the control plane answers no question ${JSON.stringify(verb)}`)
    if (this.#carrier === null) throw new Error('this host has no link to a control plane yet')
    return this.#carrier.carry(body)
  }

  async stop(): Promise<void> {
    await this.#link?.close()
  }

  /** Of networks and storage; what is new is told on both sides. */
  async #look(settings: ControlSettings | null): Promise<void> {
    if (settings === null || this.#looking) return
    this.#looking = true
    try {
      const news = newsOf(await readHost(settings.inventory), settings.inventory)
      if (news.sha256 === this.#digest) return
      this.#digest = news.sha256
      this.#core?.tell(inventoryNewsTopic, news)
      this.#link?.inventoryChanged()
    } catch (error) {
      this.#core?.tell(
        'note',
        `networks and storage could not be looked at: ${error instanceof Error ? error.message : String(error)}`,
      )
    } finally {
      this.#looking = false
    }
  }

  async #begin(settings: ControlSettings): Promise<void> {
    this.#settings = settings
    const identity = readIdentity(join(settings.folder, 'identity.json'))
    if (identity === null) throw new Error('this host is not enrolled')
    this.#carrier = new Carrier({ url: identity.url })
    const link = await ControlLink.open({
      identity,
      relay: request => this.#throughPeer(request),
      folder: settings.folder,
      host: this.#hostPort(settings, identity),
      policy: { refuse: settings.refuse },
      inventory: () => inventoryOf(settings),
      nowMs: Date.now,
      random: Math.random,
      note: why => void this.#core?.tell('note', why),
      settled: () => this.#settled(settings),
    })
    this.#link = link
    if (this.#standing !== null) link.standing(this.#standing)
    setInterval(() => this.#core?.report(link.state()), reportEveryMs)
    setInterval(() => void this.#look(settings), lookEveryMs)
    void this.#look(settings)
    await link.start()
  }

  async #throughPeer(request: RelayRequest): Promise<RelayAnswer> {
    const answer = (await this.#core?.ask(relayVerb, request, relayLimitMs + askLimitMs)) ?? {
      ok: false,
      why: 'no core',
    }
    if (!answer.ok) throw new Error(answer.why)
    return relayAnswer.parse(answer.body)
  }

  #hostPort(settings: ControlSettings, identity: Identity): HostPort {
    const { socket, configPath } = settings
    const core = coreOverSocket(socket, { version: softwareVersion, startedAt: new Date().toISOString() })
    let held: PairWish | null = null
    const hostSettings = new HostSettings({
      configPath,
      status: core.status,
      peer: async () => {
        const answer = (await core.read('peerSettings')) as { said: OwnSettings | null } | null
        return answer?.said ?? null
      },
      restart: why => this.#beginAnew(settings, why),
      nowMs: Date.now,
      check: preflight,
      addresses: () => Object.values(networkInterfaces()).flatMap(all => (all ?? []).map(one => one.address)),
      keys: new KeyChange({ identity, certificate: config => renewedCertificate(config, () => certificateOf(socket)) }),
    })
    const sysfs = new Sysfs()
    const hostVerbs: HostVerbs = {
      configPath,
      inventory: settings.inventory,
      sysfs,
      scanner: new Scanner({ sysfs, devices: async () => (await storageInventory(sysfs)).devices }),
      tell: () => this.#link?.tellInventory() ?? Promise.resolve('the link is not there yet'),
      theirInitiatorName: async () => theirInitiatorName(await core.read('hosts')),
    }
    const wish = async (): Promise<PairWish | null> => {
      const until = Date.now() + wishLimitMs
      while (held === null && Date.now() < until) await new Promise(resolve => setTimeout(resolve, 100))
      return held
    }
    return {
      present: core.present,
      state: core.state,
      apply: wanted => {
        held = wanted.pair
        return hostSettings.apply(wanted)
      },
      run: async (command, progress) => {
        switch (command.verb) {
          case 'prechecks':
            return prechecks(command, configPath)
          case 'pairBegin':
          case 'pairJoin': {
            // A host that runs in its pair tells its secret once more, and runs on.
            const runs = (await core.present()) !== null
            const outcome = await runSetUp(command, { identity, configPath, settings: hostSettings, wish, progress })
            if (outcome.phase === 'done' && !runs) this.#restart = outcome.message
            return outcome
          }
          default:
            return (await runHostVerb(command, hostVerbs)) ?? core.run(command, progress)
        }
      },
    }
  }

  #settled(settings: ControlSettings): void {
    const why = this.#restart
    this.#restart = null
    if (why !== null) void this.#beginAnew(settings, why)
  }

  async #beginAnew({ socket }: ControlSettings, why: string): Promise<void> {
    await ask({ path: socket, verb: 'restart', args: { why: why.slice(0, 200) }, silenceMs: askLimitMs })
  }
}

/** For this host, from the one that has the key of the pair's authority. */
const certificateOf = async (path: string): Promise<KeyAndCertificate> =>
  (await ask({ path, verb: 'newCertificate', silenceMs: certificateLimitMs })) as KeyAndCertificate
const certificateLimitMs = 30_000

async function inventoryOf({ inventory }: ControlSettings) {
  const { network, storage } = await readHost(inventory)
  const summary = summaryOf({ network, storage, vips: inventory.vips })
  return { summary, network: { ...network }, storage: { ...storage } }
}

async function prechecks(command: Command, configPath: string): Promise<RunOutcome> {
  try {
    const results = await measure(verbs.prechecks.parse(command.args), configPath)
    const blocking = results.filter(one => one.severity === 'blocking').length
    return { phase: 'done', message: `${results.length} measured, ${blocking} in the way`, result: { results } }
  } catch (error) {
    return { phase: 'failed', message: error instanceof Error ? error.message : String(error) }
  }
}
