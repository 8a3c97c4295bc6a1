/** Where PostgreSQL's server programs are: Debian keeps each major version in a directory of its own, outside of PATH. */

import { existsSync, readdirSync } from 'node:fs'
import { join } from 'node:path'

const VERSIONS_DIR = '/usr/lib/postgresql'

/** The highest version installed, or null. */
export function findPostgresBinDir(): string | null {
  if (!existsSync(VERSIONS_DIR)) return null
  const versions = readdirSync(VERSIONS_DIR).filter(name => /^\d+$/.test(name))
  const usable = versions.filter(version => existsSync(join(VERSIONS_DIR, version, 'bin', 'postgres')))
  const highest = usable.sort((one, other) => Number(other) - Number(one))[0]
  return highest === undefined ? null : join(VERSIONS_DIR, highest, 'bin')
}

/** @throws with the package to install */
export function postgresBinDir(): string {
  const dir = findPostgresBinDir()
  if (dir === null) throw new Error(`No PostgreSQL server in ${VERSIONS_DIR}: install the Debian package postgresql.`)
  return dir
}
