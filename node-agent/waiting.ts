import { dirname } from 'node:path'
import { controlDefinition, controlSettings, isEnrolled } from './control/core-side.ts'
import { controlTopic } from './control/settings.ts'
import { hostClock } from './drivers/clock.ts'
import { notifier } from './drivers/notify.ts'
import type { BaseConfig } from './host-file.ts'
import { VerbError } from './socket/messages.ts'
import { beginAnew, programVerbs } from './socket/program-verbs.ts'
import { SocketServer } from './socket/server.ts'
import { Workers } from './workers/supervisor.ts'

const withoutPeer = (): never => {
  throw new Error('a host that waits for its pair has no peer that could carry anything')
}

/**
 * The agent of a host that is in no pair yet: nothing but the link to the control plane, which sets it up. Then the
 * program begins anew, as the agent of a pair.
 */
export async function runWaiting(
  base: BaseConfig,
  { configPath, log }: { configPath: string; log: (line: string) => void },
): Promise<void> {
  const workers = new Workers({
    definitions: [],
    runtimeDir: dirname(base.socket),
    note: log,
    random: hostClock.random,
  })
  const link = (): void =>
    workers.add(controlDefinition({ note: log, heard: () => {}, relay: withoutPeer }), [
      [controlTopic, controlSettings(base, configPath)],
    ])
  const stop = async (): Promise<void> => {
    server.close()
    await workers.stop()
  }
  const restart = (why: string): void => {
    log(`the agent begins anew: ${why}`)
    void stop().then(() => beginAnew())
  }
  const server = new SocketServer({
    path: base.socket,
    verbs: {
      ...programVerbs({ enrolled: link, restart }),
      status: async () => {
        throw new VerbError('refused', waitsFor(base))
      },
    },
    failed: (verb, error) => log(`the verb ${verb} failed: ${String(error)}`),
  })
  await server.listen()
  if (isEnrolled(base)) link()
  log(waitsFor(base))
  const manager = notifier()
  manager.ready(waitsFor(base))
  if (manager.aliveEveryMs > 0) setInterval(() => manager.alive(), manager.aliveEveryMs)
  for (const signal of ['SIGTERM', 'SIGINT'] as const) process.on(signal, () => void stop().then(() => process.exit(0)))
}

const waitsFor = (base: BaseConfig): string =>
  isEnrolled(base)
    ? 'this host is in no pair yet: its control plane sets it up'
    : 'this host is in no pair yet: make it known to a control plane with `understudy enrol`, or give its configuration a pair'
