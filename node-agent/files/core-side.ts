import type { Config } from '../config.ts'
import { tlsPaths } from '../pair/keys.ts'
import type { WorkerDefinition } from '../workers/definition.ts'
import { workerCommand } from '../workers/registry.ts'
import type { Workers } from '../workers/supervisor.ts'
import { type FilesSettings, openedTopic, settingsTopic } from './settings.ts'

/** What the core knows of its files worker: how to start it, what to tell it, how to ask it. */

export const filesWorkerName = 'files'
/** Measured: 130 to 190 MiB with 50 000 files; twenty times as many have room, and a leak ends. */
const memoryMb = 2048
/** A flush that the disk takes long for is no hang; the loop itself never waits for the disk that long. */
const hangLimitMs = 60_000
/** Questions of the CLI are answered from memory. */
const askLimitMs = 5000

/** What the worker told the core of itself. */
export interface FilesNews {
  note: (why: string) => void
  /** All trees of this host are open to its services, as the primary's of this term. */
  opened: (term: number) => void
}

/**
 * Some seconds after it has come to rest V8 would look through the whole heap twice more for memory to give back: this worker
 * does that itself, once (rest.ts).
 */
export const filesFlags = ['--no-memory-reducer'] as const

/** Of Node's pool, for the disk; each tree needs one more, which waits for the kernel's events half a second at a time. */
const diskThreads = 4
export const filesEnvironment = (trees: number): { [name: string]: string } => ({
  UV_THREADPOOL_SIZE: String(diskThreads + trees),
})

export function filesDefinitions(config: Config, news: FilesNews): WorkerDefinition[] {
  if (config.sync === null) return []
  const command = workerCommand(filesWorkerName, { memoryMb, flags: filesFlags })
  const told = (topic: string, body: unknown): void => {
    if (topic === 'note') news.note(String(body))
    else if (topic === openedTopic) news.opened(Number(body))
  }
  const env = filesEnvironment(config.sync.trees.length)
  return [{ name: filesWorkerName, command, env, memoryMb, hangLimitMs, told }]
}

/** Told once; the supervisor tells it again to a worker that was started anew. */
export function publishFilesSettings(workers: Workers, config: Config): void {
  if (config.sync === null) return
  const { pair, node, stateDir, sync, peer } = config
  const tls = tlsPaths(config)
  const settings: FilesSettings = {
    pair,
    node,
    stateDir,
    listen: { hosts: peer.paths.map(path => path.local), port: sync.port },
    peer: { hosts: peer.paths.map(path => path.peer), port: sync.port },
    tls: { key: tls.key, certificate: tls.certificate, authority: tls.authority },
    trees: sync.trees,
  }
  workers.publish(settingsTopic, settings)
}

/** @throws a sentence, also when nothing is to be replicated here */
export async function askFiles(
  workers: Workers,
  question: { verb: string; body: unknown; limitMs?: number },
): Promise<unknown> {
  const { verb, body, limitMs = askLimitMs } = question
  const answer = await workers.ask(filesWorkerName, { verb, body, limitMs })
  if (answer.ok) return answer.body
  throw new Error(answer.why)
}

/** Of a tree, as the worker reports it. */
export interface ReportedTree {
  tree: string
  state: string
  role: string
  policy: string
  lagLimitS: number
  behindS?: number
  behindChanges?: number
  behindBytes?: number
  seed?: { percent: number; leftS: number | null } | null
  blocked?: string | null
  refusal?: string | null
  /** Why changes are only found by comparing. */
  unwatched?: string | null
  problemCount?: number
}

export const reportedTrees = (workers: Pick<Workers, 'state'>): ReportedTree[] => filesReport(workers)?.trees ?? []

/** What the worker told last, as the very object that came; null since it was started anew. */
export function filesReport(workers: Pick<Workers, 'state'>): { trees?: ReportedTree[] } | null {
  const state = workers.state().find(one => one.name === filesWorkerName)
  return (state?.report ?? null) as { trees?: ReportedTree[] } | null
}

/** What keeps the backup's copies from counting as ready, each a sentence: trees with the policy "required". */
export function filesObstacles(trees: readonly ReportedTree[]): string[] {
  return trees
    .filter(tree => tree.policy === 'required' && tree.role === 'primary')
    .flatMap(tree => {
      const isCurrent = tree.state === 'in sync' || (tree.state === 'behind' && (tree.behindS ?? 0) <= tree.lagLimitS)
      if (tree.unwatched) return [`the files of ${tree.tree} are required on the backup: ${tree.unwatched}`]
      if (isCurrent) return []
      return [
        `the files of ${tree.tree} are required on the backup and are ${tree.state} by ${tree.behindS ?? 0} s (limit ${tree.lagLimitS} s)`,
      ]
    })
}

/** Lag beyond the limit, and what stands in the way: alarms whatever the policy. */
export function filesWarnings(trees: readonly ReportedTree[]): string[] {
  return trees
    .filter(tree => tree.role === 'primary')
    .flatMap(tree => [
      ...((tree.behindS ?? 0) > tree.lagLimitS
        ? [`the files of ${tree.tree} are ${tree.behindS} s behind on the backup (limit ${tree.lagLimitS} s)`]
        : []),
      ...(tree.blocked ? [`the files of ${tree.tree}: ${tree.blocked}`] : []),
      ...(tree.unwatched ? [`the files of ${tree.tree}: ${tree.unwatched}`] : []),
      ...((tree.problemCount ?? 0) > 0 ? [`${tree.problemCount} files of ${tree.tree} are not replicated`] : []),
    ])
}
