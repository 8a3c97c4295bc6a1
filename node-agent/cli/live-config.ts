import { existsSync, readFileSync, statSync } from 'node:fs'
import { networkInterfaces } from 'node:os'
import { basename, dirname, join } from 'node:path'
import type { Command } from 'commander'
import { newVipFaults } from '../../shared/hosts/summary.ts'
import { readApplied, type WishedField } from '../applied-wish.ts'
import { type Config, parseConfig } from '../config.ts'
import { loadConfig } from '../host-file.ts'
import { comparedSchema } from '../inventory/compared.ts'
import { tlsPaths } from '../pair/keys.ts'
import type { StatusReport } from '../report/status-report.ts'
import { openFolderWriter } from '../state-file/atomic-write.ts'
import { askAgent, defaultConfigPath, type GlobalOptions } from './connection.ts'
import { Exit } from './exit-codes.ts'

/**
 * A changed configuration taken while the pair serves. Everything is checked before the file is written or the agent told;
 * then the agent begins anew in its own process, adopts what runs (ADR 0004), and is looked at until it is what the
 * configuration says. Each host has its own file: the backup first, then the primary.
 */
export const pathOf = (command: Command): string => command.optsWithGlobals<GlobalOptions>().config ?? defaultConfigPath

/** What this host's configuration says, where it is the operator's to change. @throws Exit */
export function ownConfig(command: Command, { field, words }: { field: WishedField; words: string }): Config {
  const before = loadConfig(pathOf(command))
  if (readApplied(before.stateDir)?.fields[field] === undefined) return before
  throw new Exit(
    'refused',
    `${words} of this pair come from its control plane: change them there, and both hosts take them`,
  )
}

/**
 * Writes one field of this host's file and has the agent take it; where that does not become well the file is as before.
 * @param back the field to go back to, where it is to be more than the one before
 * @throws Exit or ConfigError
 */
export async function changeField<Field extends WishedField>(
  command: Command,
  field: Field,
  value: Config[Field],
  back?: Config[Field],
): Promise<void> {
  const path = pathOf(command)
  const text = readFileSync(path, 'utf8')
  const withField = (to: Config[Field]): string =>
    `${JSON.stringify({ ...(JSON.parse(text) as object), [field]: to }, null, 2)}\n`
  const written = withField(value)
  const next = parseConfig(written, path)
  await refuseUnfit(command, next)
  await replaceFile(path, written)
  await beginAnew(command, next, () => replaceFile(path, back === undefined ? text : withField(back)))
}

/** Whoever could read it can read it again. */
async function replaceFile(path: string, text: string): Promise<void> {
  const folder = await openFolderWriter(dirname(path))
  try {
    await folder.write(basename(path), Buffer.from(text), statSync(path).mode & 0o777)
  } finally {
    await folder.close()
  }
}

/** What the running agent could not take, or this host or the other one has no place for. @throws Exit or ConfigError */
export async function refuseUnfit(command: Command, next: Config): Promise<void> {
  // Loaded here only: the other verbs start in a fraction of the time.
  const { whyNotLive, whyUnfit, whyUnreachable } = await import('../control/wished-config.ts')
  const { preflight } = await import('../preflight.ts')
  const running = (await askAgent(command, 'configuration')) as Config
  const { witness } = (await askAgent(command, 'status')) as StatusReport
  const present = Object.values(networkInterfaces()).flatMap(all => (all ?? []).map(one => one.address))
  const figures = { profile: running.profile, voteP99Ms: witness?.voteP99Ms ?? null }
  const why = whyNotLive(running, next) ?? whyUnfit(next, figures) ?? whyUnreachable(running, next, present)
  if (why !== null) throw new Exit('refused', why)
  await preflight(next)
  const compared = comparedSchema.parse(await askAgent(command, 'hosts'))
  const { node, own, theirs } = compared
  if (own === null || theirs === null) return
  const both = node === 'a' ? { a: own, b: theirs } : { a: theirs, b: own }
  for (const [index, vip] of next.vips.entries()) {
    if (running.vips.some(one => one.address === vip.address && one.interface === vip.interface)) continue
    const [fault] = newVipFaults(vip, both)
    if (fault !== undefined) throw new Exit('config', `vips[${index}].${fault}; nothing was changed`)
  }
}

/** @param restore the configuration before, where the agent is not well with the changed one; null: it is the operator's */
export async function beginAnew(
  command: Command,
  next: Config,
  restore: (() => Promise<void>) | null = null,
): Promise<void> {
  const before = (await askAgent(command, 'status')) as StatusReport
  const running = (await askAgent(command, 'configuration')) as Config
  if (JSON.stringify(running) === JSON.stringify(next) && !keysAreOthers(next)) {
    process.stdout.write('the agent runs with this configuration already; nothing was changed\n')
    return
  }
  await askAgent(command, 'restart', { args: { why: 'a changed configuration of this host' } })
  const now = await untilWell(command, { before, running, next })
  if (now !== null) {
    process.stdout.write(`${done(now)}\n`)
    return
  }
  const unwell = `the agent was told to begin anew with the changed configuration, and was not well with it within ${wellLimitMs / 1000} s`
  if (restore === null) throw new Exit('unknownOutcome', `${unwell}: look at \`understudy status\``)
  await restore()
  await askAgent(command, 'restart', { args: { why: 'the configuration before is taken again' } }).catch(() => null)
  throw new Exit('refused', `${unwell}: the one before is in force again`)
}

/** The files of the pair's certificates hold something else than PostgreSQL was given of them. */
function keysAreOthers(config: Config): boolean {
  const { authority, certificate, key } = tlsPaths(config)
  const given = { 'ca.crt': authority, 'server.crt': certificate, 'server.key': key }
  return Object.entries(given).some(([name, from]) => {
    const copy = join(config.stateDir, 'postgres', name)
    return existsSync(copy) && !readFileSync(copy).equals(readFileSync(from))
  })
}

/** A start, the adoption of what runs, and a busy machine. */
const wellLimitMs = 30_000
const lookMs = 200

/** The agent that began after this one, serving if this one did, with the addresses and certificates that it should have then. */
async function untilWell(
  command: Command,
  { before, running, next }: { before: StatusReport; running: Config; next: Config },
): Promise<StatusReport | null> {
  for (const end = performance.now() + wellLimitMs; performance.now() < end; ) {
    await new Promise(resolve => setTimeout(resolve, lookMs))
    const now = (await askAgent(command, 'status').catch(() => null)) as StatusReport | null
    if (now === null || now.agent.startedAt === before.agent.startedAt) continue
    const known = now.vips.length === next.vips.length
    const held = now.vips.every(vip => vip.present === now.serving || vip.conflict !== null)
    const sameWitness = JSON.stringify(running.witness) === JSON.stringify(next.witness)
    const voted = sameWitness || !now.serving || now.witness === null || now.witness.isMember
    if (known && held && voted && !keysAreOthers(next) && (now.serving || !before.serving)) return now
  }
  return null
}

function done({ role, serving, vips, peer }: StatusReport): string {
  const list = vips.map(vip => vip.address).join(', ') || 'none'
  const here = serving ? 'they are here' : 'they come with the service'
  return `this host (${role}) runs with the changed configuration; virtual addresses: ${list}; ${here}. Do the same on ${peer.node}, unless it is done there`
}
