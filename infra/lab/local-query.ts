/** A query on one host's own database through its Unix socket, past VIP and gate: what verification looks with. */

import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { run } from './exec.ts'
import { postgresBinDir } from './postgres-programs.ts'

/** A table of some 100 000 rows is read in a second. */
const QUERY_LIMIT_MS = 60_000

export interface LocalQuery {
  socketDir: string
  database: string
  user: string
  sql: string
}

/** The operating system's user PostgreSQL's packages make. */
export function postgresUser(): { uid: number; gid: number } {
  const line = readFileSync('/etc/passwd', 'utf8')
    .split('\n')
    .find(entry => entry.startsWith('postgres:'))
  if (line === undefined) throw new Error('There is no user "postgres": install the Debian package postgresql.')
  const [, , uid, gid] = line.split(':')
  return { uid: Number(uid), gid: Number(gid) }
}

/** Rows as `psql -At` prints them: columns apart by "|". */
export function queryLocally({ socketDir, database, user, sql }: LocalQuery): Promise<string> {
  const { uid, gid } = postgresUser()
  const psql = [
    join(postgresBinDir(), 'psql'),
    '-XAtq',
    '-v',
    'ON_ERROR_STOP=1',
    '-h',
    socketDir,
    '-U',
    user,
    '-d',
    database,
  ]
  return run('setpriv', [`--reuid=${uid}`, `--regid=${gid}`, '--clear-groups', ...psql, '-f', '-'], {
    // Not an argument: a statement may hold a password.
    input: sql,
    deadlineMs: QUERY_LIMIT_MS,
  })
}
