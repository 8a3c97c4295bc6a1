import type { ServiceConfig } from '../config-services.ts'
import { exec } from '../exec.ts'
import { lookUpUser } from '../users.ts'
import { ProcessRunner } from './process-runner.ts'

/** Starts and stops one service; knows nothing of roles. '' = done, else why not. */
export interface Runner {
  start(env: Record<string, string>): Promise<string>
  /** After `limitMs` it is killed; resolves when nothing of it is left. */
  stop(limitMs: number): Promise<string>
  /** '' while it runs, else how it ended. A program that only starts others is judged by its health check. */
  ended(): Promise<string>
  /** Tells at once when it ends by itself, where that can be seen. */
  onEnd(tell: (why: string) => void): void
  /** Takes over what an agent before this one started. */
  adopt(): Promise<boolean>
}

export interface RunnerOptions {
  service: ServiceConfig
  /** Of this host alone: pid files and environment files. */
  runtimeDir: string
}

export function runnerOf(options: RunnerOptions): Runner {
  const { service } = options
  if ('unit' in service) return new UnitRunner(service.unit, service.startLimitMs)
  if ('run' in service) return new ProcessRunner({ ...options, service })
  return commandRunner(service)
}

const nothing = async (): Promise<string> => ''

function commandRunner(service: Extract<ServiceConfig, { start: string[] }>): Runner {
  const run = async (argv: string[], limitMs: number, env?: Record<string, string>): Promise<string> => {
    const owner = await ownerOf(service.user)
    if (typeof owner === 'string') return owner
    const result = await exec(argv, { limitMs, ...owner, ...(env === undefined ? {} : { env }) })
    return result.ok ? '' : result.why
  }
  return {
    start: env => run(service.start, service.startLimitMs, env),
    stop: limitMs => run(service.stop, limitMs),
    ended: nothing,
    onEnd: () => {},
    adopt: async () => false,
  }
}

/** systemctl answers over D-Bus in some ms; a manager that hangs must not hang us. */
const systemctlLimitMs = 5000

class UnitRunner implements Runner {
  readonly #unit: string
  readonly #startLimitMs: number
  constructor(unit: string, startLimitMs: number) {
    this.#unit = unit
    this.#startLimitMs = startLimitMs
  }

  /**
   * A unit has no argument for its environment; the manager's own variables reach every unit that starts afterwards,
   * systemd.exec(5), so they are set under names of ours.
   */
  async start(env: Record<string, string>): Promise<string> {
    const ours = Object.entries(env).filter(([key]) => key.startsWith('UNDERSTUDY_'))
    const set = await systemctl(['set-environment', ...ours.map(([key, value]) => `${key}=${value}`)], systemctlLimitMs)
    return set === '' ? systemctl(['start', this.#unit], this.#startLimitMs) : set
  }

  async stop(limitMs: number): Promise<string> {
    const why = await systemctl(['stop', this.#unit], limitMs)
    if (why === '') return ''
    await systemctl(['kill', '--signal=SIGKILL', this.#unit], systemctlLimitMs)
    return systemctl(['stop', this.#unit], systemctlLimitMs)
  }

  async ended(): Promise<string> {
    return (await this.#isActive()) === 'no' ? `${this.#unit} is not active` : ''
  }

  onEnd(): void {}

  async adopt(): Promise<boolean> {
    return (await this.#isActive()) === 'yes'
  }

  /** A manager that does not answer in time, as while it loads its units anew, has not said that the unit ended. */
  async #isActive(): Promise<'yes' | 'no' | 'unknown'> {
    const asked = await exec(['systemctl', '--no-ask-password', 'is-active', this.#unit], { limitMs: systemctlLimitMs })
    if (asked.ok) return 'yes'
    return asked.stdout.trim() === '' ? 'unknown' : 'no'
  }
}

async function systemctl(args: readonly string[], limitMs: number): Promise<string> {
  const result = await exec(['systemctl', '--no-ask-password', ...args], { limitMs })
  return result.ok ? '' : result.why
}

/** The ids of a service's user, {} for our own; a sentence if there is no such user. */
export async function ownerOf(user: string | null): Promise<{ uid?: number; gid?: number } | string> {
  if (user === null) return {}
  const found = await lookUpUser(user)
  return found ?? `there is no user ${JSON.stringify(user)}: create it or change "user" of the service`
}
