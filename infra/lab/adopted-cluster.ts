/** A cluster as an operator would have it before the product came: made by initdb with its own defaults. */

import { appendFileSync, chownSync, mkdirSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { run } from './exec.ts'
import { postgresUser } from './local-query.ts'
import { postgresBinDir } from './postgres-programs.ts'

/** In `dataDir`, with checksums and PostgreSQL's default of 16 MB segments; nothing of it runs afterwards. */
export async function makeForeignCluster(dataDir: string): Promise<void> {
  const { uid, gid } = postgresUser()
  mkdirSync(dirname(dataDir), { recursive: true })
  mkdirSync(dataDir, { mode: 0o700 })
  chownSync(dataDir, uid, gid)
  const initdb = [join(postgresBinDir(), 'initdb'), '-D', dataDir, '--data-checksums', '--locale=C.UTF-8', '--no-sync']
  await run('setpriv', [`--reuid=${uid}`, `--regid=${gid}`, '--clear-groups', ...initdb], {
    env: { PATH: '/usr/bin:/bin', LC_ALL: 'C.UTF-8' },
  })
  // Clients of the network log in by password, as its operator would have it.
  appendFileSync(join(dataDir, 'pg_hba.conf'), 'host all all all scram-sha-256\n')
}
