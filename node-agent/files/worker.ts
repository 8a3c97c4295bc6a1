import { mkdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { z } from 'zod'
import { otherNode } from '../../shared/protocol/nodes.ts'
import { readSecret } from '../keys/secret-file.ts'
import type { Core, WorkerProgram } from '../workers/worker-process.ts'
import type { Hello } from './messages.ts'
import { lackForAttributes } from './meta.ts'
import { Replica } from './replica.ts'
import { RestCollector } from './rest.ts'
import {
  type FilesRole,
  type FilesSettings,
  filesRoleSchema,
  filesSettingsSchema,
  openedTopic,
  roleTopic,
  settingsTopic,
} from './settings.ts'
import { type Admission, LinkServer, type ServerPart, type TlsIdentity } from './tls-link.ts'

const reportEveryMs = 1000
/** A role that could not be taken (a disk error) is tried again. */
const roleRetryMs = 1000
const listenRetryMs = 1000
/** Metadata and structure of everything, several times an hour: seconds of work even for a million files. */
const scrubEveryMs = 10 * 60_000
const waitLimitMaxMs = 3_600_000
/** The core's questions are many; a barrier each would only wait for the same. */
const waitsMax = 64

const waitSchema = z.strictObject({ tree: z.string().optional(), limitMs: z.int().min(0).max(waitLimitMaxMs) })
const scrubSchema = z.strictObject({
  tree: z.string().optional(),
  /** contents: also reads and compares what the files contain. */
  what: z.enum(['metadata', 'contents']).default('metadata'),
})
const hourMs = 3_600_000
const contentLookMs = 60_000

/** The files worker: one replica a tree, one port for the other host's. Its death stops replication and nothing else. */
export class FilesWorker implements WorkerProgram {
  #core: Core | null = null
  #settings: FilesSettings | null = null
  /** Null: not told yet. */
  #role: FilesRole | null = null
  #replicas: Replica[] = []
  readonly #servers: LinkServer[] = []
  #opening: Promise<void> = Promise.resolve()
  #timers: NodeJS.Timeout[] = []
  readonly #rest = new RestCollector()
  #waits = 0
  /** Of barriers that are waited for: the role under which they were asked for has ended. */
  readonly #overtaken = new Set<(why: Error) => void>()
  /** Why a role could not be taken. */
  #why = ''
  /** Why this worker can't begin. */
  #openWhy = ''
  /** Addresses that can't be listened on, and why. */
  readonly #deaf = new Map<string, string>()
  #stopped = false
  /** What no tree of this host is replicated with, for people. */
  readonly #lacks = lackForAttributes()

  start(core: Core): void {
    this.#core = core
    this.#timers.push(setInterval(() => this.#report(core), reportEveryMs))
    this.#timers.push(setInterval(() => this.#scrub(), scrubEveryMs))
    this.#timers.push(setInterval(() => this.#compareOldContents(), contentLookMs))
  }

  told(topic: string, body: unknown): void {
    if (topic === settingsTopic) {
      // Settings change with a restart of the agent, which brings a worker of its own.
      if (this.#settings !== null) return
      this.#settings = filesSettingsSchema.parse(body)
      const settings = this.#settings
      this.#opening = this.#open(settings).catch(error => this.#failed(error))
    } else if (topic === roleTopic) {
      const role = filesRoleSchema.parse(body)
      if (role.role !== this.#role?.role || role.epoch !== this.#role.epoch) this.#overtake(role)
      this.#role = role
      this.#take()
    }
  }

  asked(verb: string, body: unknown): unknown {
    switch (verb) {
      case 'status':
        return this.status()
      case 'wait':
        return this.#wait(waitSchema.parse(body))
      case 'scrub': {
        const { tree, what } = scrubSchema.parse(body)
        this.#scrub(tree)
        if (what === 'contents') this.#compareContents(tree)
        return null
      }
      default:
        throw new Error(`the files worker does not know ${verb}`)
    }
  }

  status() {
    const why = [this.#openWhy, this.#why, ...this.#deaf.values()].filter(one => one !== '').join('; ')
    return { why, lacks: this.#lacks, trees: this.#replicas.map(replica => replica.status()) }
  }

  #report(core: Core): void {
    this.#reopen()
    core.report(this.status())
    this.#rest.look({ isAtRest: this.#replicas.every(one => one.isAtRest) })
  }

  /**
   * A backup's copy whose path leads elsewhere is opened anew, and with it what is there now. A primary's is not: nobody
   * but an operator can say whether an empty directory is what is to be on the backup.
   */
  #reopen(): void {
    const lost = this.#replicas.filter(one => one.role === 'backup' && one.isOutOfPlace)
    if (lost.length === 0) return
    for (const replica of lost) {
      this.#core?.tell('note', `${replica.name}: its path leads to another directory than before; it is opened anew`)
      void replica.become('none', { epoch: replica.epoch }).catch(() => undefined)
    }
    this.#take()
  }

  async stop(): Promise<void> {
    this.#stopped = true
    for (const timer of this.#timers) clearInterval(timer)
    await this.#opening
    for (const server of this.#servers) server.close()
    await Promise.all(this.#replicas.map(replica => replica.close()))
  }

  async #open(settings: FilesSettings): Promise<void> {
    const { pair, node, peer, listen, trees } = settings
    const stateDir = join(settings.stateDir, 'files')
    mkdirSync(stateDir, { recursive: true, mode: 0o700 })
    const identity = identityOf(settings)
    const note = (why: string): void => {
      this.#core?.tell('note', why)
    }
    for (const tree of trees) {
      const replica = await Replica.open({ pair, node, tree, stateDir, peer, identity, note })
      replica.onCut = name => {
        for (const server of this.#servers) server.cut(name)
      }
      this.#replicas.push(replica)
    }
    const admit = (hello: Hello): Admission =>
      this.#replicas.find(one => one.name === hello.tree)?.admit(hello) ?? {
        ok: false,
        why: `there is no tree ${hello.tree} here`,
        remedy: 'never',
      }
    for (const host of listen.hosts) void this.#listen({ host, port: listen.port, identity, note, admit })
    this.#take()
  }

  /** An address may come later than this process does (a bond, a VLAN, the detection of duplicate IPv6 addresses). */
  async #listen(part: ServerPart): Promise<void> {
    const { host, port, note } = part
    while (!this.#stopped) {
      try {
        const server = await LinkServer.listen(part)
        this.#deaf.delete(host)
        this.#servers.push(server)
        if (this.#stopped) server.close()
        return
      } catch (error) {
        const why = `can't listen for files on ${host}: ${messageOf(error)}; tried again each second`
        if (this.#deaf.get(host) !== why) note(`files: ${why} (port ${port})`)
        this.#deaf.set(host, why)
        await sleep(listenRetryMs)
      }
    }
  }

  #take(): void {
    const wanted = this.#role
    if (wanted === null) return
    void this.#opening.then(async () => {
      const failed: string[] = []
      const become = async (replica: Replica): Promise<void> => {
        const opened = (): void => this.#opened(wanted)
        await replica.become(wanted.role, { epoch: wanted.epoch, opened }).catch(error => failed.push(messageOf(error)))
      }
      await Promise.all(this.#replicas.map(become))
      this.#why = failed.join('; ')
      if (failed.length === 0 || wanted !== this.#role) return
      this.#core?.tell('note', `files: ${this.#why}`)
      setTimeout(() => wanted === this.#role && this.#take(), roleRetryMs)
    })
  }

  /** Another tree is open; the services may start with the last one. */
  #opened({ role, epoch }: FilesRole): void {
    if (role !== 'primary' || this.#replicas.some(one => one.openIn !== epoch)) return
    this.#core?.tell(openedTopic, epoch)
  }

  #failed(error: unknown): void {
    this.#openWhy = messageOf(error)
    this.#core?.tell('note', `files: ${this.#openWhy}`)
  }

  /** Answers when everything written before the question is durable on the backup. */
  async #wait({ tree, limitMs }: { tree?: string | undefined; limitMs: number }): Promise<unknown> {
    const replicas = this.#replicas.filter(one => tree === undefined || one.name === tree)
    if (replicas.length === 0)
      throw new Error(tree === undefined ? 'no tree is replicated here' : `there is no tree ${tree} here`)
    const other = replicas.find(one => one.sender === null)
    if (other !== undefined) throw new Error(this.#whyUnwritten(other.name))
    if (this.#waits >= waitsMax) throw new Error(`${waitsMax} barriers are waited for already`)
    this.#waits += 1
    const began = performance.now()
    let timer: NodeJS.Timeout | undefined
    let overtaken: (why: Error) => void = () => {}
    const over = new AbortController()
    try {
      const hasLeft = new Promise<never>((_, reject) => {
        overtaken = reject
        this.#overtaken.add(reject)
      })
      const limit = new Promise<false>(resolve => {
        timer = setTimeout(() => resolve(false), limitMs)
      })
      const all = Promise.all(replicas.map(one => one.sender?.barrier(over.signal))).then(() => true as const)
      if (await Promise.race([all, limit, hasLeft]))
        return { waitedMs: Math.round((performance.now() - began) * 10) / 10 }
      throw new Error(`not durable on the backup within ${limitMs} ms: ${replicas.map(one => one.why()).join('; ')}`)
    } finally {
      clearTimeout(timer)
      over.abort()
      this.#overtaken.delete(overtaken)
      this.#waits -= 1
    }
  }

  /** Nothing is acknowledged under a role that has ended: whoever waits is told at once, and not when his patience is over. */
  #overtake({ role, epoch }: FilesRole): void {
    const why = `this host is ${role} of epoch ${epoch} since the barrier was asked for: what was written before may not be on the other host`
    for (const reject of this.#overtaken) reject(new Error(why))
  }

  #whyUnwritten(tree: string): string {
    if (this.#role?.role !== 'primary') return `${tree} is not written on this host: ask the primary`
    return `${tree} is not open yet on this host, which becomes primary: ${this.#why === '' ? 'ask again' : this.#why}`
  }

  #compareContents(tree?: string): void {
    for (const { name, sender } of this.#replicas) {
      if (sender !== null && (tree === undefined || name === tree)) sender.compareContents()
    }
  }

  /** A pass ends some time after it began; the next one begins so long after that, or after this worker's start. */
  #compareOldContents(): void {
    for (const { sender, contentEveryH } of this.#replicas) {
      if (sender === null || !sender.isSettled || contentEveryH === 0) continue
      const { last, running } = sender.contents.status()
      const sinceMs = performance.now() - (last?.endedMs ?? sender.startedMs)
      if (running === null && sinceMs > contentEveryH * hourMs) sender.compareContents()
    }
  }

  #scrub(tree?: string): void {
    for (const { name, sender } of this.#replicas) {
      if (sender !== null && (tree === undefined || name === tree) && sender.isSettled) sender.compare('scrub')
    }
  }
}

function identityOf({ tls, pair, node }: FilesSettings): TlsIdentity {
  const key = readSecret(tls.key)
  if (key === null) throw new Error(`${tls.key} is missing: \`pair init\` and \`pair join\` make it`)
  return {
    keyPem: key.toString('utf8'),
    certificatePem: readFileSync(tls.certificate, 'utf8'),
    authorityPem: readFileSync(tls.authority, 'utf8'),
    peerName: `understudy-${pair}-${otherNode(node)}`,
  }
}

const messageOf = (error: unknown): string => (error instanceof Error ? error.message : String(error))
