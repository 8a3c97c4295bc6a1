import { networkInterfaces } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { z } from 'zod'
import { type Command, verbs } from '../../shared/contract/documents.ts'
import type { Standing } from '../agent.ts'
import { loadHost } from '../host-file.ts'
import { theirInitiatorName } from '../inventory/compared.ts'
import { Looker } from '../inventory/looker.ts'
import { inventoryNewsTopic, inventoryTopic } from '../inventory/settings.ts'
import { hasLeft } from '../pair/setup-file.ts'
import { shutOut } from '../pair/shut-out.ts'
import type { OwnSettings } from '../peer-news.ts'
import { preflight } from '../preflight.ts'
import { ask } from '../socket/client.ts'
import { readState } from '../state-file/state-file.ts'
import { Scanner } from '../storage/scan.ts'
import { Sysfs } from '../storage/sysfs.ts'
import { softwareVersion } from '../version.ts'
import { ownPlaces } from '../witness/host-key-change.ts'
import { standingTopic } from '../workers/definition.ts'
import type { Core, WorkerProgram } from '../workers/worker-process.ts'
import { act, coreOverSocket } from './core-over-socket.ts'
import { relayLimitMs, relayVerb } from './core-side.ts'
import { HostKeys } from './host-keys.ts'
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
/** The state of a path tells nobody of a change; each look is a process. */
const lookEveryMs = 60_000
const askLimitMs = 5_000
/** An operator who made room need not start anything anew. */
const beginAgainMs = 10_000
/** An agent that begins anew has ended this process long before. */
const endLimitMs = 30_000
/** A command may overtake the wish it belongs to. */
const wishLimitMs = 10_000

/** The link to the control plane in a process of its own: the core neither waits for it nor sees what it hears. */
export class ControlWorker implements WorkerProgram {
  #core: Core | null = null
  #link: ControlLink | null = null
  #carrier: Carrier | null = null
  #standing: Standing | null = null
  #begun = false
  #looking = false
  #said = ''
  /** Of the newest inventory, whoever has looked: what the control plane is told when it is another one. */
  #digest = ''
  /** A set-up is over: the agent begins anew once its answer is out. */
  #restart: string | null = null
  /** It has been asked to. */
  #ending = false

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
      this.#isNew(sha256)
    }
    if (topic !== controlTopic || this.#begun) return
    this.#begun = true
    void this.#run(controlSettingsSchema.parse(body))
  }

  /** What kept it from beginning may have ended, as a full disk does. */
  async #run(settings: ControlSettings): Promise<void> {
    for (let said = ''; ; await sleep(beginAgainMs)) {
      try {
        return await this.#begin(settings)
      } catch (error) {
        const why = error instanceof Error ? error.message : String(error)
        if (why !== said) this.#core?.tell('note', `the link does not run, and is tried again: ${why}`)
        said = why
        this.#core?.report({ why })
      }
    }
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
  async #look(looker: Looker): Promise<void> {
    if (this.#looking) return
    this.#looking = true
    try {
      const { news, change } = await looker.news()
      this.#lookSays('why' in change ? change.why : '')
      if (this.#isNew(news.sha256)) this.#core?.tell(inventoryNewsTopic, news)
    } catch (error) {
      this.#lookSays(error instanceof Error ? error.message : String(error))
    } finally {
      this.#looking = false
    }
  }

  /** Once: what can't be taken back yet is tried each minute. */
  #lookSays(why: string): void {
    if (why !== '' && why !== this.#said) this.#core?.tell('note', why)
    this.#said = why
  }

  #isNew(sha256: string): boolean {
    if (sha256 === this.#digest) return false
    this.#digest = sha256
    this.#link?.inventoryChanged()
    return true
  }

  async #begin(settings: ControlSettings): Promise<void> {
    const looker = new Looker({ settings: settings.inventory })
    const path = join(settings.folder, 'identity.json')
    const identity = readIdentity(path)
    if (identity === null) throw new Error('this host is not enrolled')
    const keys = new HostKeys({ identity, path })
    this.#carrier = new Carrier({ url: identity.url })
    const link = await ControlLink.open({
      identity,
      relay: request => this.#throughPeer(request),
      folder: settings.folder,
      host: this.#hostPort(settings, { identity, keys, looker }),
      policy: { refuse: settings.refuse },
      inventory: async () => {
        const { summary, network, storage } = await looker.host()
        return { summary, network: { ...network }, storage: { ...storage } }
      },
      nowMs: Date.now,
      random: Math.random,
      note: why => void this.#core?.tell('note', why),
      settled: () => this.#settled(settings),
      unknown: async () => {
        if (await keys.tryAside())
          await this.#keysChanged('this host goes on with the keys that the control plane knows')
      },
    })
    this.#link = link
    if (this.#standing !== null) link.standing(this.#standing)
    const timers = [
      setInterval(() => this.#core?.report(link.state()), reportEveryMs),
      setInterval(() => void this.#look(looker), lookEveryMs),
    ]
    if (this.#digest !== '') link.inventoryChanged()
    void this.#look(looker)
    try {
      await link.start()
    } catch (error) {
      for (const timer of timers) clearInterval(timer)
      this.#link = null
      await link.close()
      throw error
    }
  }

  async #throughPeer(request: RelayRequest): Promise<RelayAnswer> {
    const answer = (await this.#core?.ask(relayVerb, request, relayLimitMs + askLimitMs)) ?? {
      ok: false,
      why: 'no core',
    }
    if (!answer.ok) throw new Error(answer.why)
    return relayAnswer.parse(answer.body)
  }

  /** The core signs the votes of a hosted witness with them, and has read them at its start. */
  async #keysChanged(why: string): Promise<void> {
    this.#core?.tell('note', why)
    await this.#link?.keysChanged()
    this.#restart = why
  }

  #hostPort(
    settings: ControlSettings,
    { identity, keys, looker }: { identity: Identity; keys: HostKeys; looker: Looker },
  ): HostPort {
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
      keys: new KeyChange({ identity }),
    })
    const sysfs = new Sysfs()
    const hostVerbs: HostVerbs = {
      configPath,
      sysfs,
      host: () => looker.host(),
      storage: () => looker.storage(),
      scanner: new Scanner({ sysfs, devices: async () => (await looker.storage()).devices }),
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
      endsSoon: () => this.#ending || this.#restart !== null,
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
            const { status } = core
            const context = { identity, configPath, settings: hostSettings, wish, status, progress }
            const outcome = await runSetUp(command, context)
            if (outcome.phase === 'done' && !runs) this.#restart = outcome.message
            return outcome
          }
          case 'hostKeys': {
            // First what may fail for want of somebody else, and is as before then.
            const atWitness = await hostKeyAtWitness(socket, configPath)
            if (atWitness !== null && atWitness.phase !== 'done') return atWitness
            const outcome = await keys.change(command.operation)
            if (outcome.phase === 'done') await this.#keysChanged(outcome.message)
            return atWitness === null ? outcome : { ...outcome, message: `${outcome.message}; ${atWitness.message}` }
          }
          case 'pairLeave': {
            const outcome = await core.run(command, progress)
            if (outcome.phase !== 'done') return outcome
            // A host that left waits for another pair, or the same, unless the operator's own file says which one it is of.
            const { base, input } = loadHost(configPath)
            if (!('pair' in input) && hasLeft(base)) this.#restart = 'this host has left its pair'
            return command.args.otherIsLost === true ? this.#shutOut(configPath, outcome) : outcome
          }
          default: {
            const outcome = await runHostVerb(command, hostVerbs)
            // What it has changed is news at once.
            if (outcome !== null && command.verb !== 'inventory') void this.#look(looker)
            return outcome ?? core.run(command, progress)
          }
        }
      },
    }
  }

  /** What the lost host knows of the pair opens nothing here from the agent's next start on. */
  async #shutOut(configPath: string, outcome: RunOutcome): Promise<RunOutcome> {
    try {
      const { config } = loadHost(configPath)
      const left = config === null ? '' : await shutOut(config)
      this.#restart = 'the lost host is shut out'
      const known = `its key still counts at a witness: ${left.slice(0, 250)}. \`understudy pair alone\` on this host tells it again`
      return left === '' ? outcome : { ...outcome, message: `${outcome.message}; ${known}` }
    } catch (error) {
      const why = error instanceof Error ? error.message : String(error)
      return { phase: 'failed', message: `${outcome.message}, but the keys of the pair are as before: ${why}` }
    }
  }

  #settled(settings: ControlSettings): void {
    const why = this.#restart
    this.#restart = null
    if (why === null) return
    this.#beginAnew(settings, why).catch((error: unknown) => {
      // It is asked again after the next answer.
      this.#restart ??= why
      this.#ending = false
      this.#core?.tell(
        'note',
        `the agent does not begin anew: ${error instanceof Error ? error.message : String(error)}`,
      )
    })
  }

  async #beginAnew({ socket }: ControlSettings, why: string): Promise<void> {
    this.#ending = true
    // Where it did not come to that, commands are taken again.
    setTimeout(() => (this.#ending = false), endLimitMs)
    await ask({ path: socket, verb: 'restart', args: { why: why.slice(0, 200) }, silenceMs: askLimitMs })
  }
}

/** By which witnesses of one's own know this host. null: there are none. */
async function hostKeyAtWitness(path: string, configPath: string): Promise<RunOutcome | null> {
  const { base, config } = loadHost(configPath)
  if (config === null || !readState(base.stateDir).ok || ownPlaces(config).length === 0) return null
  return act({ path, verb: 'changeHostKey', args: {} })
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
