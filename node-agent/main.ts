import { dirname } from 'node:path'
import { isDeepStrictEqual } from 'node:util'
import type { EventBody } from '../shared/protocol/types.ts'
import { Agent } from './agent.ts'
import { type AppliedWish, settingsStand, takenBack, writeApplied } from './applied-wish.ts'
import type { Config } from './config.ts'
import { controlDefinition, controlSettings, isEnrolled, relayLimitMs, relayVerb } from './control/core-side.ts'
import { readOffer } from './control/key-offer.ts'
import { controlTopic } from './control/settings.ts'
import { Decisions } from './decisions.ts'
import { hostClock } from './drivers/clock.ts'
import { notifier } from './drivers/notify.ts'
import { openPorts } from './drivers/ports-of-host.ts'
import { VipDriver } from './drivers/vip-port.ts'
import { filesDefinitions, publishFilesSettings } from './files/core-side.ts'
import { OrderedServices } from './files/ordered-services.ts'
import { termOf } from './files/settings.ts'
import { type BaseConfig, loadHostForStart } from './host-file.ts'
import { inventorySettings } from './inventory/core-side.ts'
import { HostLook } from './inventory/look.ts'
import { type InventoryNews, inventoryTopic } from './inventory/settings.ts'
import { takeInheritedChildren } from './kernel/inherited-children.ts'
import { runRealTime } from './kernel/libc.ts'
import { releaseStartMemory } from './kernel/memory.ts'
import { readHostKey } from './keys/host-key.ts'
import { type NetworkConfig, ofWaiting, partsOf } from './network/change-process.ts'
import { restoreVswitches } from './network/vswitches.ts'
import { authoritiesInForce } from './pair/authority.ts'
import { certificateEnds, certificateTrouble } from './pair/certificate-ends.ts'
import { certificateForOther, keepOtherHostKey } from './pair/keys.ts'
import { LeftPair, readSetup } from './pair/setup-file.ts'
import { PathWatch } from './peer/path-watch.ts'
import { noAuthorities, type OwnSettings } from './peer-news.ts'
import { preflight } from './preflight.ts'
import { Pulse } from './pulse.ts'
import { beginAnew } from './socket/program-verbs.ts'
import { SocketServer } from './socket/server.ts'
import { verbsOf } from './socket/verbs.ts'
import { readState } from './state-file/state-file.ts'
import { StopTimes } from './stop-times.ts'
import { prepareStop, type StopKind, stopKindOf } from './stopping.ts'
import { leftBehind, readPutUp, writePutUp } from './vip/left-behind.ts'
import { runWaiting } from './waiting.ts'
import {
  readTaken,
  type Taken,
  WitnessChoice,
  type Witnesses,
  wantedAtStart,
  witnessesOf,
  writeTaken,
} from './witness/choice.ts'
import { admittedOf } from './witness/places.ts'
import { Workers } from './workers/supervisor.ts'

/** One sentence a line; systemd's journal adds the time. */
const log = (line: string): void => {
  process.stderr.write(`${line}\n`)
}
/** Standard for "internal software error" (sysexits.h): systemd restarts at once. */
const exitBroken = 70
/** What is lost when the disk hangs is the last line of the file, which the journal has. */
const lastWordsMs = 100
/** systemd's own view is for people; once a second is enough. */
const statusEveryMs = 1000

/**
 * The start-up order: nothing is touched before the configuration and the host are checked and this folder is ours
 * alone; the socket answers from then on, whatever else hangs; then gate, database, links, and at last the core.
 */
export async function runAgent(configPath: string): Promise<void> {
  takeInheritedChildren()
  const { base, input, config: wanted, applied, note } = await loadHostForStart(configPath)
  if (note !== '') log(note)
  // Without a pair in the operator's own file it is the set-up that makes a member of this host, not the wish for one.
  if (wanted === null || (!('pair' in input) && !readState(base.stateDir).ok)) return wait(base, configPath)
  const config = wanted
  await preflight(config).catch(error => revertOrFail(error, { stateDir: base.stateDir, applied }))
  const setup = readSetup(config.stateDir)
  if (setup?.leftAt !== undefined) {
    if (!('pair' in input)) return wait(base, configPath)
    throw new LeftPair(setup)
  }
  await makeNetworks(config)
  await leaveOldAddresses(config)
  const pulse = new Pulse()
  const { ports, durable } = await openPorts(config, { note: (why: string) => agent.note(why), pulse })
  const decisions = new Decisions({
    stateDir: config.stateDir,
    maxBytes: config.limits.decisionsMb * 2 ** 20,
    now: () => ({ wallMs: hostClock.wallMs(), bootMs: hostClock.bootMs() }),
  })
  await decisions.load()
  const witnesses = witnessesOf(config.witness, setup?.witnessInc ?? null)
  const witnessInc = wantedAtStart(witnesses, {
    voter: durable.known?.value.voters.w,
    taken: readTaken(config.stateDir),
  })
  const stored = { durable, witnessInc, begins: setup?.part === 'begins' }
  const workers = new Workers({
    definitions: filesDefinitions(config, {
      note: why => agent.note(why),
      opened: term => {
        openTerm = term
      },
    }),
    runtimeDir: dirname(config.socket),
    note: why => agent.note(why),
    random: hostClock.random,
  })
  publishFilesSettings(workers, config)
  let openTerm = -1
  const isOpen = (): boolean => openTerm >= termOf(agent.status())
  const services =
    config.sync === null
      ? ports.services
      : new OrderedServices({ services: ports.services, isOpen, note: why => agent.note(why) })
  const link = (): void =>
    workers.add(
      controlDefinition({
        note: why => agent.note(why),
        heard: news => heard(agent, news),
        relay: request => askPeer(agent, request),
      }),
      [[controlTopic, controlSettings(config, configPath)]],
    )
  let anew = async (why: string): Promise<void> => agent.note(`${why}: refused, the agent has not started yet`)
  const exit = (why: string): void => void broken(decisions, why)
  const withFiles = { ...ports, services }
  const tells = {
    settings: () => ownSettings(config),
    certificate: () => certificateForOther(config),
    keepHostKey: (text: string) => keepOtherHostKey(config, text),
  }
  const agent: Agent = new Agent({ config, ports: withFiles, decisions, stored, workers, pulse, tells, log, exit })
  const server = new SocketServer({
    path: config.socket,
    verbs: verbsOf(agent, { enrolled: link, restart: why => void anew(why) }),
    failed: (verb, error) => agent.note(`the verb ${verb} failed: ${String(error)}`),
  })
  await server.listen()
  process.on('uncaughtException', error => void broken(decisions, error.stack ?? error.message))
  await agent.start()
  if (isEnrolled(config)) link()
  lookAround(agent, { pulse, configPath })
  if (witnesses !== null) chooseWitness(agent, { witnesses, pulse })
  watchPaths(agent, pulse)
  watchCertificates(agent, pulse)
  comeFirst(agent)
  releaseMemory()
  anew = attend(agent, { server, decisions, config, pulse })
}

/** After the start, and now and then, for what an incident needed. */
function releaseMemory(): void {
  setTimeout(releaseStartMemory, startedAfterMs).unref()
  setInterval(releaseStartMemory, releaseEveryMs).unref()
}
/** All that only a start needs has been freed by then. */
const startedAfterMs = 10_000
/** An incident is rarer, and each time costs some milliseconds. */
const releaseEveryMs = 600_000

/** The core changes members; which witness is wanted is looked at here, and nothing waits for it. */
function chooseWitness(agent: Agent, { witnesses, pulse }: { witnesses: Witnesses; pulse: Pulse }): void {
  const port = agent.ports.witness
  if (port === null) return
  const note = (why: string): void => agent.note(why)
  const remember = (taken: Taken): void => {
    writeTaken(agent.config.stateDir, taken).catch((error: unknown) => note(`not remembered: ${String(error)}`))
  }
  const parts = { post: (event: EventBody) => agent.post(event), note, remember }
  const choice = new WitnessChoice({ witnesses, port, ...parts })
  pulse.every(lookEveryMs, () => choice.tick(agent.state, hostClock.bootMs()))
}

async function ownSettings(config: Config): Promise<OwnSettings> {
  const key = await readHostKey(config.hostKeyFile).catch(() => null)
  return {
    ...(await settingsStand(config.stateDir)),
    witnesses: admittedOf(config),
    hostKey: key?.publicKey ?? null,
    keyOffer: readOffer(config.stateDir),
    authorities: config.postgres.tls === null ? authoritiesInForce(config) : noAuthorities,
  }
}

/** Networks and storage are looked at beside; the link to the control plane is told that there is news. */
function lookAround(agent: Agent, { pulse, configPath }: { pulse: Pulse; configPath: string }): void {
  const settings = inventorySettings(agent.config, configPath)
  const failed = (why: string): void => agent.standing('look', why)
  const note = (why: string): void => agent.note(why)
  const look = new HostLook({ settings, failed, note, heard: news => heard(agent, news) }, hostClock.bootMs())
  pulse.every(lookEveryMs, () => look.tick(hostClock.bootMs()))
  agent.lookWanted = () => look.wanted()
}
/** Between a change of networks and the look at it; and between two looks at the paths. */
const lookEveryMs = 1000

function watchPaths(agent: Agent, pulse: Pulse): void {
  const watch = new PathWatch(hostClock.bootMs())
  pulse.every(lookEveryMs, () => agent.standing('paths', watch.trouble(agent.ports.peer.paths(), hostClock.bootMs())))
}

/** Read beside: nothing waits for the disk. */
function watchCertificates(agent: Agent, pulse: Pulse): void {
  const { config } = agent
  const look = async (): Promise<void> => {
    agent.certificates = await certificateEnds(config)
    const at = { nowMs: hostClock.wallMs(), isOwn: config.postgres.tls !== null }
    agent.standing('certificates', certificateTrouble(agent.certificates, at))
  }
  void look()
  pulse.every(certificatesEveryMs, () => void look())
}
/** Days count; the clock may be set meanwhile. */
const certificatesEveryMs = 60_000

function heard(agent: Agent, { sha256, summary }: InventoryNews): void {
  agent.comparison.take({ sha256, summary })
  agent.workers.publish(inventoryTopic, { sha256 })
}

/** By way of the other host, for the link to the control plane. @throws with a sentence */
async function askPeer(agent: Agent, body: unknown): Promise<unknown> {
  const answer = await agent.ports.peer.ask({ verb: relayVerb, body, limitMs: relayLimitMs })
  if (!answer.ok) throw new Error(answer.why)
  return answer.body
}

/** Settings that this host can't even start with are taken back at once. */
async function revertOrFail(error: unknown, part: { stateDir: string; applied: AppliedWish | null }): Promise<never> {
  const { stateDir, applied } = part
  if (applied === null || applied.confirmed) throw error
  const why = error instanceof Error ? error.message : String(error)
  log(`new settings are taken back: ${why}`)
  await writeApplied(stateDir, takenBack(applied, why))
  return beginAnew()
}

/** A virtual address that is wanted no more would stay on this host, which may not serve for long. */
async function leaveOldAddresses(config: Config): Promise<void> {
  const before = readPutUp(config.stateDir)
  const vips = leftBehind(before, config.vips)
  if (vips.length > 0) {
    // Connections to these addresses end with them; those to the ports of the service by way of others go on.
    const driver = new VipDriver({ ...config, vips, protectedPorts: [] })
    driver.down()
    driver.close()
  }
  if (isDeepStrictEqual(before, config.vips)) return
  await writePutUp(config.stateDir, config.vips).catch((error: unknown) =>
    log(`the virtual addresses of this start could not be noted: ${String(error)}`),
  )
}

/** Above every ordinary program, below the kernel's own real-time threads (50 and more). */
const realTimePriority = 10

/**
 * Heartbeats, lease and gate come before whatever else wants the processor: a starved agent loses its lease, or makes a
 * healthy backup ineligible. It takes a few hundredths of one core; its other threads and all that it starts are ordinary.
 */
function comeFirst(agent: Agent): void {
  try {
    runRealTime(realTimePriority)
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error)
    agent.note(`the agent runs without real-time priority (${why}): a starved host may lose its lease`)
  }
}

/** The pair's paths and virtual addresses may be on vSwitches that this boot has lost. */
/** It has a control plane to reach, and may have vSwitches by now to reach it over. */
async function wait(base: BaseConfig, configPath: string): Promise<void> {
  await makeNetworks(ofWaiting(base))
  return runWaiting(base, { configPath, log })
}

async function makeNetworks(config: NetworkConfig): Promise<void> {
  for (const line of await restoreVswitches(partsOf(config))) log(line)
}

/** From here on the process only reacts: to its watchdog, to signals, to the core. */
function attend(
  agent: Agent,
  parts: { server: SocketServer; decisions: Decisions; config: Config; pulse: Pulse },
): (why: string) => Promise<void> {
  const manager = notifier()
  const summary = (): string => {
    const { role, protection, why } = agent.status()
    return `pair ${parts.config.pair}, ${role}: ${protection}: ${why}`
  }
  manager.ready(summary())
  parts.pulse.every(statusEveryMs, () => manager.status(summary()))
  if (manager.aliveEveryMs > 0) setInterval(() => manager.alive(), manager.aliveEveryMs)
  let stopping = false
  const end = async (why: string, kind: StopKind): Promise<void> => {
    agent.note(
      `${why}: ${kind === 'handOff' ? 'hands over, then stops' : 'stops and leaves what runs to the next agent'}`,
    )
    const times = new StopTimes()
    await times.part(kind === 'handOff' ? 'hand-over' : 'maintenance', prepareStop(agent, kind))
    await agent.detach(times)
    parts.server.close()
    agent.note(times.sentence())
    await parts.decisions.flush(lastWordsMs)
  }
  const stop = async (signal: string): Promise<void> => {
    if (stopping) return
    stopping = true
    manager.stopping()
    await end(signal, await stopKindOf(agent))
    process.exit(0)
  }
  for (const signal of ['SIGTERM', 'SIGINT'] as const) process.on(signal, () => void stop(signal))
  return async why => {
    if (stopping) return
    stopping = true
    await end(why, 'leaveRunning')
    beginAnew()
  }
}

/** Fails closed: nothing renews the gate any more. */
async function broken(decisions: Decisions, why: string): Promise<void> {
  log(`the agent ends: ${why}`)
  decisions.add(0, `the agent ends: ${why}`)
  const end = setTimeout(() => process.exit(exitBroken), lastWordsMs)
  await decisions.flush(lastWordsMs)
  clearTimeout(end)
  process.exit(exitBroken)
}
