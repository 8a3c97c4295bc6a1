import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import type { ConfigFault } from '../config-faults.ts'

/** What lies where the database is to be; read without a server and without changing anything. */
export type DataDirectory =
  | { kind: 'absent' }
  | { kind: 'empty' }
  | { kind: 'cluster'; major: number; running: boolean }
  | { kind: 'foreign'; found: string }

export function lookAtDataDirectory(path: string): DataDirectory {
  if (!existsSync(path)) return { kind: 'absent' }
  const names = readdirSync(path).filter(name => name !== 'lost+found')
  if (names.length === 0) return { kind: 'empty' }
  const version = join(path, 'PG_VERSION')
  if (!existsSync(version)) return { kind: 'foreign', found: names.slice(0, namesShown).join(', ') }
  return { kind: 'cluster', major: Number(readFileSync(version, 'utf8').trim()), running: isRunning(path) }
}
const namesShown = 3

/** The first line of postmaster.pid is the postmaster's; a file left by a crash names nobody, or somebody else. */
function isRunning(path: string): boolean {
  try {
    const pid = Number(readFileSync(join(path, 'postmaster.pid'), 'utf8').split('\n')[0])
    return pid > 1 && readFileSync(`/proc/${pid}/cmdline`, 'utf8').includes('postgres')
  } catch {
    return false
  }
}

export interface DataDirectoryWish {
  dataDir: string
  mode: 'create' | 'adopt'
  part: 'begins' | 'joins'
  major: number
  /** Where an adopted cluster is configured, if not in its data directory. */
  configFile: string | null
  hbaFile: string | null
  /** A set-up of this host was begun before: what it made is no stranger. */
  resumed: boolean
}

/** Why the directory can't be used as wished. */
export function dataDirectoryFaults(wish: DataDirectoryWish): ConfigFault[] {
  const { dataDir, mode, part, major, resumed } = wish
  const found = lookAtDataDirectory(dataDir)
  const fault = (rule: string, remedy: string): ConfigFault[] => [
    { field: 'postgres.dataDir', value: dataDir, rule, remedy },
  ]
  if (found.kind === 'foreign')
    return fault(
      `holds something that is no PostgreSQL cluster (${found.found})`,
      'name another directory, or move that away',
    )
  if (found.kind === 'cluster') {
    if (found.major !== major)
      return fault(
        `is a cluster of PostgreSQL ${found.major}, postgres.binDir holds ${major}`,
        'name the bin folder of that version',
      )
    if (resumed) return []
    if (found.running)
      return fault(
        'is in use by a running server',
        'stop it and disable its unit: from now on the agent alone starts it',
      )
    if (part === 'joins')
      return fault('holds a cluster already', 'the joining host gets a copy of the other one: move this one away')
    return mode === 'adopt'
      ? adoptionFaults(wish)
      : fault(
          'holds a cluster already and postgres.mode is "create"',
          'set postgres.mode to "adopt" to keep its data, or name an empty directory',
        )
  }
  if (part === 'begins' && mode === 'adopt')
    return fault(
      `is ${found.kind} and postgres.mode is "adopt"`,
      'name the directory of the cluster, or set postgres.mode to "create"',
    )
  return []
}

/** What would be lost, or go wrong unseen, if the cluster were started as a primary as it is. */
function adoptionFaults({ dataDir, major, configFile, hbaFile }: DataDirectoryWish): ConfigFault[] {
  const faults: ConfigFault[] = []
  const has = (name: string): boolean => existsSync(join(dataDir, name))
  const add = (field: string, value: unknown, rule: string, remedy: string): void => {
    faults.push({ field, value, rule, remedy })
  }
  if (has('standby.signal') || has('recovery.signal'))
    add(
      'postgres.dataDir',
      dataDir,
      'is a standby of another primary',
      'promote it and stop it first, or name the primary',
    )
  if (has('backup_label'))
    add(
      'postgres.dataDir',
      dataDir,
      'is a base backup that was never recovered',
      'start and stop it once, then adopt it',
    )
  for (const [field, name, given] of [
    ['postgres.configFile', 'postgresql.conf', configFile],
    ['postgres.hbaFile', 'pg_hba.conf', hbaFile],
  ] as const) {
    if (given === null && !has(name)) {
      const example = `/etc/postgresql/${major}/main/${name}`
      add(field, undefined, `is missing, and ${dataDir} holds no ${name}`, `name the cluster's own, such as ${example}`)
    } else if (given !== null && !existsSync(given))
      add(field, given, 'does not exist', `name the cluster's own ${name}`)
  }
  return faults
}
