import { chmodSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import postgres from 'postgres'
import { makePrivateJwk, type SigningSecrets } from '../../../control-plane/auth/signing-keys.ts'
import type { AuthoritySecrets } from '../../../control-plane/auth/x509.ts'
import type { BrokerAccess } from '../../../control-plane/broker/mqtt-client.ts'
import { openDatabase } from '../../../control-plane/db/client.ts'
import { migrateDatabase } from '../../../control-plane/db/migrate.ts'
import { bootstrap } from '../../../control-plane/entry/bootstrap.ts'
import { startLocalMosquitto } from '../../../control-plane/entry/local/mosquitto.ts'
import { startLocalPostgres } from '../../../control-plane/entry/local/postgres.ts'
import { localAuthority, localSecrets } from '../../../control-plane/entry/local/secrets.ts'
import type { PrivateJwk } from '../../../shared/contract/signing.ts'
import { pairReport } from '../../control-plane/support/host.ts'
import { settings } from '../../control-plane/support/pair.ts'

/** What every part measures against: the control plane's own PostgreSQL and Mosquitto, with a fleet in the tables. */
export interface Stand {
  folder: string
  databaseUrl: string
  adminUrl: string
  broker: BrokerAccess
  authority: AuthoritySecrets
  secrets: SigningSecrets
  /** Of every host in the tables. */
  hostKey: PrivateJwk
  /** Of the first organisation's administrator. */
  token: string
  organisation: string
  close: () => Promise<void>
}

export async function makeStand(): Promise<Stand> {
  const folder = mkdtempSync(join(tmpdir(), 'understudy-bench-'))
  chmodSync(folder, 0o711)
  const local = await startLocalPostgres(join(folder, 'postgres'))
  await migrateDatabase(local.url)
  const { database, close } = openDatabase({ url: local.url, max: 1 })
  const tokens = await bootstrap(database, new Date())
  await close()
  const authority = await localAuthority(join(folder, 'keys'))
  const mosquitto = await startLocalMosquitto(join(folder, 'mosquitto'), { authority, address: '127.0.0.1' })
  const sql = postgres(local.adminUrl.replace(/\/postgres$/, '/understudy'), { max: 1 })
  const [row] = await sql<{ id: string }[]>`select id from organisation`
  await sql.end()
  return {
    folder,
    databaseUrl: local.url,
    adminUrl: local.adminUrl.replace(/\/postgres$/, '/understudy'),
    broker: mosquitto.access,
    authority,
    secrets: await localSecrets(join(folder, 'keys')),
    hostKey: await makePrivateJwk(),
    token: tokens!.admin!,
    organisation: row!.id,
    close: async () => {
      await mosquitto.close()
      await local.close()
      rmSync(folder, { recursive: true, force: true })
    },
  }
}

/** Fit for a topic level, and found again by its number. */
export const hostId = (number: number): string => String(number).padStart(26, '0')

/** `count` hosts in pairs, all of them heard a moment ago and at the wanted generation: a fleet at rest. */
export async function seedFleet(stand: Stand, count: number): Promise<void> {
  const sql = postgres(stand.adminUrl, { max: 1, onnotice: () => {} })
  const report = (primary: boolean): string =>
    JSON.stringify({
      v: 1,
      boot: 1,
      seq: 0,
      observedGeneration: 1,
      applied: { status: 'True', generation: 1, why: '' },
      pair: pairReport({ role: primary ? 'primary' : 'backup', primary: 'a' }),
      agent: { version: '0.1.0', startedAt: new Date().toISOString() },
      sentAt: new Date().toISOString(),
      freshAt: new Date().toISOString(),
      certificateEndsAt: null,
    })
  const { organisation } = stand
  try {
    await sql.unsafe('truncate host, pair, host_seen, outbox cascade')
    await sql`
      insert into host (id, organisation, name, state, public_key, sealing_key, enrolled_at)
      select lpad(n::text, 26, '0'), ${organisation}, 'host-' || n, 'active', ${stand.hostKey.x}, repeat('A', 43), now()
      from generate_series(1, ${count}::int) n`
    await sql`
      insert into host_desired (host, organisation, generation, jws, sha256, pushed_at, push_at)
      select id, organisation, 1, repeat('x', 1500), repeat('0', 64), now(), now() + interval '55 min' from host`
    await sql`
      insert into host_reported (host, organisation, boot, seq, observed_generation, body, received_at)
      select id, organisation, 1, 0, 1, (case when right(id, 1)::int % 2 = 1 then ${report(true)} else ${report(false)} end)::jsonb, now()
      from host`
    await sql`
      insert into host_seen (host, boot, seq, role, epoch, received_at) select id, 1, 0, 'backup', 1, now() from host`
    await sql`
      insert into pair (id, organisation, name, state, host_a, host_b, first, settings, generation, created_at, set_up_at)
      select '8' || lpad(n::text, 25, '0'), ${organisation}, 'pair-' || n, 'paired', lpad((2 * n - 1)::text, 26, '0'),
        lpad((2 * n)::text, 26, '0'), 'a', ${sql.json(settings as never)}, 1, now(), now()
      from generate_series(1, ${count}::int / 2) n`
    await sql.unsafe('vacuum analyze')
  } finally {
    await sql.end()
  }
}

/** Seconds of processor that the children of a process, and theirs, have used so far, by program. */
export function processorSeconds(of = process.pid): Record<string, number> {
  const ticksPerSecond = 100
  const all = readdirSync('/proc')
    .filter(name => /^\d+$/.test(name))
    .flatMap(name => {
      try {
        const text = readFileSync(`/proc/${name}/stat`, 'utf8')
        const program = text.slice(text.indexOf('(') + 1, text.lastIndexOf(')'))
        const fields = text.slice(text.lastIndexOf(')') + 2).split(' ')
        return [
          {
            pid: Number(name),
            parent: Number(fields[1]),
            program,
            seconds: (Number(fields[11]) + Number(fields[12])) / ticksPerSecond,
          },
        ]
      } catch {
        // It ended meanwhile.
        return []
      }
    })
  const found: Record<string, number> = {}
  const walk = (pid: number): void => {
    for (const one of all.filter(each => each.parent === pid)) {
      found[one.program] = (found[one.program] ?? 0) + one.seconds
      walk(one.pid)
    }
  }
  walk(of)
  return found
}
