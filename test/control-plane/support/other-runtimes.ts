import { type ChildProcess, spawn } from 'node:child_process'
import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { openDatabase } from '../../../control-plane/db/client.ts'
import { migrateDatabase } from '../../../control-plane/db/migrate.ts'
import { bootstrap } from '../../../control-plane/entry/bootstrap.ts'
import { freePort } from '../../../control-plane/entry/local/child.ts'
import { startLocalPostgres } from '../../../control-plane/entry/local/postgres.ts'
import { localSecrets } from '../../../control-plane/entry/local/secrets.ts'
import { openBroker } from './open-broker.ts'
import type { Runtime } from './runtime.ts'

/** The same application in workerd and in Deno, over a PostgreSQL of its own, as children of the test. */
const root = join(import.meta.dirname, '../../..')
const startLimitMs = 90_000

interface Prepared {
  folder: string
  env: Record<string, string>
  port: number
  databaseUrl: string
  adminUrl: string
  mqttUrl: string
  instanceToken: string
  close: () => Promise<void>
}

async function prepare(): Promise<Prepared> {
  const folder = mkdtempSync(join(tmpdir(), 'understudy-cp-'))
  chmodSync(folder, 0o711)
  const local = await startLocalPostgres(join(folder, 'postgres'))
  await migrateDatabase(local.url)
  const { database, close } = openDatabase({ url: local.url, max: 1 })
  const tokens = await bootstrap(database, new Date())
  await close()
  const broker = await openBroker(join(folder, 'broker'))
  const port = await freePort()
  return {
    folder,
    port,
    databaseUrl: local.url,
    adminUrl: local.adminUrl,
    mqttUrl: broker.url,
    instanceToken: tokens!.instance,
    env: {
      DATABASE_URL: local.url,
      SIGNING_SECRETS: JSON.stringify(await localSecrets(join(folder, 'keys'))),
      PUBLIC_URL: `http://127.0.0.1:${port}`,
      // As behind a proxy that ends TLS, without which the hosted witness is refused.
      WITNESS_URL: 'https://witness.example',
      MQTT_URL: broker.url,
      RATE_LIMIT_PER_SECOND: '10000',
    },
    close: async () => {
      await broker.close()
      await local.close()
      rmSync(folder, { recursive: true, force: true })
    },
  }
}

/** @param sweepPath where the runtime is told to do what is due; null: it has a timer of its own, every two seconds */
async function started(prepared: Prepared, child: ChildProcess, sweepPath: string | null): Promise<Runtime> {
  let words = ''
  const keep = (chunk: Buffer): void => {
    words = (words + chunk.toString()).slice(-8000)
  }
  child.stdout?.on('data', keep)
  child.stderr?.on('data', keep)
  const ended = new Promise<void>(resolve => child.once('exit', () => resolve()))
  const close = async (): Promise<void> => {
    // A group of its own: the runtime has children.
    if (child.exitCode === null && child.pid !== undefined) process.kill(-child.pid, 'SIGTERM')
    const timer = setTimeout(() => child.pid !== undefined && process.kill(-child.pid, 'SIGKILL'), 10_000)
    await ended
    clearTimeout(timer)
    await prepared.close()
  }
  const { port, databaseUrl, adminUrl, mqttUrl, instanceToken } = prepared
  const url = `http://127.0.0.1:${port}`
  const sweep = async (): Promise<void> => {
    if (sweepPath === null) return
    const answer = await fetch(url + sweepPath)
    if (!answer.ok) throw new Error(`${sweepPath}: ${answer.status} ${await answer.text()}`)
  }
  const until = Date.now() + startLimitMs
  for (;;) {
    const up = await fetch(`${url}/health`).then(
      answer => answer.ok,
      () => false,
    )
    if (up) return { url, databaseUrl, adminUrl, mqttUrl, instanceToken, sweep, close }
    if (child.exitCode !== null || Date.now() > until) {
      await close()
      throw new Error(`the runtime did not start: ${words}`)
    }
    await new Promise(resolve => setTimeout(resolve, 200))
  }
}

export async function denoRuntime(): Promise<Runtime> {
  const prepared = await prepare()
  const allowed = ['--allow-net', '--allow-env', '--allow-read', '--allow-sys']
  const child = spawn(
    join(root, 'node_modules/.bin/deno'),
    [
      'run',
      '--node-modules-dir=manual',
      '--no-lock',
      '--no-prompt',
      '--cached-only',
      ...allowed,
      'control-plane/entry/deno.ts',
    ],
    {
      cwd: root,
      detached: true,
      env: {
        PATH: process.env.PATH,
        HOME: prepared.folder,
        DENO_NO_UPDATE_CHECK: '1',
        LISTEN: `127.0.0.1:${prepared.port}`,
        ...prepared.env,
      },
    },
  )
  return started(prepared, child, null)
}

export async function workerdRuntime(): Promise<Runtime> {
  const prepared = await prepare()
  const { DATABASE_URL: databaseUrl, ...vars } = prepared.env
  const config = join(prepared.folder, 'wrangler.json')
  mkdirSync(join(prepared.folder, 'home'))
  writeFileSync(
    config,
    JSON.stringify({
      name: 'understudy-test',
      main: join(root, 'control-plane/entry/worker.ts'),
      compatibility_date: '2026-10-01',
      compatibility_flags: ['nodejs_compat'],
      vars,
      hyperdrive: [{ binding: 'HYPERDRIVE', id: 'local', localConnectionString: databaseUrl }],
    }),
  )
  const child = spawn(
    join(root, 'node_modules/.bin/wrangler'),
    [
      'dev',
      '--config',
      config,
      '--ip',
      '127.0.0.1',
      '--port',
      String(prepared.port),
      '--inspector-port',
      String(await freePort()),
      '--show-interactive-dev-session=false',
      '--test-scheduled',
      '--log-level',
      'warn',
    ],
    {
      cwd: prepared.folder,
      detached: true,
      env: { PATH: process.env.PATH, HOME: join(prepared.folder, 'home'), WRANGLER_SEND_METRICS: 'false', CI: '1' },
    },
  )
  return started(prepared, child, '/__scheduled')
}
