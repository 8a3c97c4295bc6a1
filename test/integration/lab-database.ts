/** A PostgreSQL started by hand on a lab host, without any product: what the lab's own instruments are tried on. */

import { chownSync, mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { addressOf, DATABASE_PORT, type HostName, INTERFACE, VIP } from '../../infra/lab/addresses.ts'
import { run } from '../../infra/lab/exec.ts'
import { networkOf, runOnHost, startOnHost } from '../../infra/lab/hosts.ts'
import { postgresUser, queryLocally } from '../../infra/lab/local-query.ts'
import { dataDirOf } from '../../infra/lab/pair.ts'
import { postgresBinDir } from '../../infra/lab/postgres-programs.ts'

const READY_LIMIT_MS = 60_000

function asPostgres(command: readonly string[]): string[] {
  return ['setpriv', '--reuid=postgres', '--regid=postgres', '--clear-groups', ...command]
}

/** Makes and starts a cluster that anybody in the lab may write to. */
export async function startPlainDatabase(lab: string, host: HostName): Promise<void> {
  const dataDir = dataDirOf(lab, host)
  const { uid, gid } = postgresUser()
  mkdirSync(dataDir, { recursive: true })
  chownSync(dataDir, uid, gid)
  const bin = postgresBinDir()
  await runOnHost(
    lab,
    host,
    asPostgres([join(bin, 'initdb'), '-D', dataDir, '-A', 'trust', '-N', '--no-locale', '-E', 'UTF8']),
  )
  writeFileSync(join(dataDir, 'pg_hba.conf'), 'local all all trust\nhost all all all trust\n')
  await runPlainDatabase(lab, host)
}

/** Starts the cluster that is there. */
export async function runPlainDatabase(lab: string, host: HostName): Promise<void> {
  const dataDir = dataDirOf(lab, host)
  const settings = [
    `unix_socket_directories=${dataDir}`,
    'listen_addresses=*',
    `port=${DATABASE_PORT}`,
    'shared_buffers=16MB',
  ]
  const server = [join(postgresBinDir(), 'postgres'), '-D', dataDir, ...settings.flatMap(setting => ['-c', setting])]
  await startOnHost(lab, host, asPostgres(server), { log: `${host}-postgres.log` })
  const deadline = performance.now() + READY_LIMIT_MS
  for (;;) {
    try {
      await queryLocally({ socketDir: dataDir, database: 'postgres', user: 'postgres', sql: 'select 1' })
      return
    } catch (error) {
      if (performance.now() > deadline) throw error
      await sleep(50)
    }
  }
}

/** Puts the VIP on a host by hand, or takes it away, and tells the neighbours as a takeover would. */
export async function moveVip(lab: string, host: HostName, action: 'add' | 'del'): Promise<void> {
  for (const [address, extra] of [
    [`${VIP.v4}/24`, []],
    [`${VIP.v6}/64`, action === 'add' ? ['nodad'] : []],
  ] as const) {
    await run(...networkOf(lab, host, ['ip', 'addr', action, address, 'dev', INTERFACE.lan, ...extra]))
  }
}

/** Makes the client forget who had the VIP. */
export async function forgetNeighbours(lab: string): Promise<void> {
  await run(...networkOf(lab, 'c', ['ip', 'neigh', 'flush', 'dev', INTERFACE.lan]))
}

export function plainUri(host: HostName | 'vip'): string {
  const address = host === 'vip' ? VIP.v4 : addressOf(host).v4
  return `postgres://postgres@${address}:${DATABASE_PORT}/postgres`
}
