import { readFileSync } from 'node:fs'
import type { z } from 'zod'
import { type AppliedWish, readApplied, startsMax, takenBack, writeApplied } from './applied-wish.ts'
import { type Config, ConfigError, configBytesMax, configSchema, parseConfig, parseJson } from './config.ts'
import { explainIssues } from './config-faults.ts'

/**
 * A host's configuration file as it lies there, with the control plane's settings laid over it. A file without `pair` is
 * that of a host which waits to be set up: it has what only the host knows, and the control plane gives the rest.
 */
const baseSchema = configSchema.omit({
  pair: true,
  node: true,
  profile: true,
  peer: true,
  vips: true,
  protectedPorts: true,
  witness: true,
  services: true,
})
export type BaseConfig = z.output<typeof baseSchema>

export interface HostFile {
  /** What only the host knows; there in any case. */
  base: BaseConfig
  /** The file's own content. */
  input: Record<string, unknown>
  /** null: this host waits for its pair. */
  config: Config | null
}

/** @throws ConfigError */
export function loadHost(path: string): HostFile {
  const input = readInput(path)
  const base = baseOf(input, path)
  return { base, input, config: configWith(input, { path, applied: readApplied(base.stateDir) }) }
}

/** @throws ConfigError, also for a host that waits for its pair */
export function loadConfig(path: string): Config {
  const { config, input } = loadHost(path)
  // The parser says best what is missing.
  return config ?? parseConfig(JSON.stringify(input), path)
}

export function configWith(
  input: Record<string, unknown>,
  { path, applied }: { path: string; applied: Pick<AppliedWish, 'fields'> | null },
): Config | null {
  const whole = { ...input, ...applied?.fields }
  return 'pair' in whole ? parseConfig(JSON.stringify(whole), path) : null
}

/**
 * For a start of the agent: settings that were never confirmed and can't be parsed, or did not come up twice, are taken
 * back first.
 */
export async function loadHostForStart(
  path: string,
): Promise<HostFile & { applied: AppliedWish | null; note: string }> {
  const input = readInput(path)
  const base = baseOf(input, path)
  const applied = readApplied(base.stateDir)
  if (applied === null || applied.confirmed) {
    return { base, input, applied, config: configWith(input, { path, applied }), note: '' }
  }
  const started = { ...applied, starts: applied.starts + 1 }
  const fault =
    started.starts > startsMax ? `the agent did not start with them ${startsMax} times` : faultOf(input, path, applied)
  const next = fault === null ? started : takenBack(applied, fault)
  await writeApplied(base.stateDir, next)
  const note = fault === null ? 'new settings are tried' : `new settings are taken back: ${fault}`
  return { base, input, applied: next, config: configWith(input, { path, applied: next }), note }
}

function faultOf(input: Record<string, unknown>, path: string, applied: AppliedWish): string | null {
  try {
    configWith(input, { path, applied })
    return null
  } catch (error) {
    return error instanceof Error ? error.message : String(error)
  }
}

function baseOf(input: Record<string, unknown>, path: string): BaseConfig {
  const known = Object.keys(configSchema.shape)
  const stray = Object.keys(input).find(key => !known.includes(key))
  const own = Object.fromEntries(Object.entries(input).filter(([key]) => key in baseSchema.shape || key === stray))
  const parsed = baseSchema.safeParse(own)
  if (parsed.success) return parsed.data
  throw new ConfigError(path, explainIssues(parsed.error.issues, own))
}

function readInput(path: string): Record<string, unknown> {
  const input = parseJson(readConfigFile(path), path)
  if (typeof input === 'object' && input !== null && !Array.isArray(input)) return input as Record<string, unknown>
  const rule = 'is no object'
  throw new ConfigError(path, [{ field: '', value: undefined, rule, remedy: 'give the configuration with --config' }])
}

function readConfigFile(path: string): string {
  const fault = (rule: string, remedy: string): ConfigError =>
    new ConfigError(path, [{ field: '', value: undefined, rule, remedy }])
  let bytes: Buffer
  try {
    bytes = readFileSync(path)
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error)
    throw fault(`cannot be read (${why})`, 'give its path with --config')
  }
  if (bytes.length <= configBytesMax) return bytes.toString('utf8')
  throw fault(`is larger than ${configBytesMax} bytes`, 'give the right file with --config')
}
