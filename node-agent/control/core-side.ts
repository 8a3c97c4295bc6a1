import { existsSync } from 'node:fs'
import { join } from 'node:path'
import type { Config } from '../config.ts'
import { inventorySettings } from '../inventory/core-side.ts'
import { type InventoryNews, inventoryNewsSchema, inventoryNewsTopic } from '../inventory/settings.ts'
import type { WorkerDefinition } from '../workers/definition.ts'
import { workerCommand } from '../workers/registry.ts'
import type { Workers } from '../workers/supervisor.ts'
import type { ControlSettings } from './settings.ts'

/** What the core knows of the link to the control plane: how to start it and what to tell it. It never waits for it. */

export const controlWorkerName = 'control'
/** Measured: 85 MiB at rest; documents and answers are bounded, and a leak ends. */
const memoryMb = 384

/** A request to the control plane that the other host carries. */
export const relayVerb = 'relay'
/** Above the time of the request itself, so that its own reason is heard. */
const carryLimitMs = 12_000
export const relayLimitMs = 15_000

/** Has the own worker carry it, for the other host. @throws with a sentence */
export async function carry(workers: Pick<Workers, 'ask'>, body: unknown): Promise<unknown> {
  const answer = await workers.ask(controlWorkerName, { verb: relayVerb, body, limitMs: carryLimitMs })
  if (!answer.ok) throw new Error(answer.why)
  return answer.body
}

export const controlFolderOf = (stateDir: string): string => join(stateDir, 'control')
export const identityFileOf = (stateDir: string): string => join(controlFolderOf(stateDir), 'identity.json')

export const isEnrolled = ({ stateDir }: Pick<Config, 'stateDir'>): boolean => existsSync(identityFileOf(stateDir))

export interface CoreAnswers {
  note: (why: string) => void
  /** It looks at networks and storage too, being there anyway. */
  heard: (news: InventoryNews) => void
  /** Has the other host carry a request. @throws with a sentence */
  relay: (request: unknown) => unknown
}

export function controlDefinition({ note, heard, relay }: CoreAnswers): WorkerDefinition {
  return {
    name: controlWorkerName,
    command: workerCommand(controlWorkerName, { memoryMb }),
    memoryMb,
    answers: { [relayVerb]: relay },
    told: (topic, body) => {
      if (topic === inventoryNewsTopic) heard(inventoryNewsSchema.parse(body))
      if (topic === 'note') note(`control plane: ${String(body).slice(0, noteMax)}`)
    },
  }
}
/** The worker's sentences hold words of whoever sits at the other end. */
const noteMax = 400

export function controlSettings(
  config: Pick<Config, 'stateDir' | 'socket' | 'control'> & Partial<Pick<Config, 'vips'>>,
  configPath: string,
): ControlSettings {
  const { stateDir, socket, control, vips = [] } = config
  const inventory = inventorySettings({ stateDir, vips }, configPath)
  return { folder: controlFolderOf(stateDir), socket, configPath, refuse: control.refuse, inventory }
}
