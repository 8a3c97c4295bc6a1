import { randomBytes } from 'node:crypto'
import { chownSync, existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import postgres from 'postgres'
import { type Child, onFreePort, runProgram, startChild } from './child.ts'
import { readSecret, writeSecret } from './secrets.ts'
import { isRoot, type SystemUser, systemUser } from './users.ts'

/**
 * The control plane's own PostgreSQL: a cluster of its own in its own folder, on a port of its own on loopback, as a
 * child. Nothing of a PostgreSQL that this machine runs otherwise is touched.
 */
export interface LocalPostgres {
  /** Of the role that owns the tables: no superuser, so the row policies hold for it. */
  url: string
  port: number
  /** Of the superuser, for making databases. */
  adminUrl: string
  close: () => Promise<void>
  ended: Promise<string>
}

const versionsDir = '/usr/lib/postgresql'
const superuser = 'understudy_admin'
const role = 'understudy'
const startLimitMs = 60_000

/**
 * @param options.port of the cluster that ran before, when it is started again; a free one by default
 * @param options.pick for tests: what is taken for free
 */
export async function startLocalPostgres(
  folder: string,
  { port, pick }: { port?: number; pick?: () => Promise<number> } = {},
): Promise<LocalPostgres> {
  const bin = programsDir()
  const user = isRoot() ? systemUser('postgres') : null
  if (isRoot() && user === null)
    throw new Error(
      'PostgreSQL refuses to run as root, and this machine has no user "postgres": install Debian’s postgresql, or set DATABASE_URL',
    )
  mkdirSync(folder, { recursive: true, mode: 0o711 })
  const dataDir = join(folder, 'data')
  const passwords = readPasswords(folder)
  if (!existsSync(join(dataDir, 'PG_VERSION')))
    await makeCluster({ bin, folder, dataDir, user, password: passwords.admin })
  await endLeftover(dataDir)
  const at = (free: number): Promise<LocalPostgres> => startServer({ bin, dataDir, user, passwords, port: free })
  return port === undefined ? onFreePort(at, pick === undefined ? {} : { pick }) : at(port)
}

async function startServer(part: {
  bin: string
  dataDir: string
  user: SystemUser | null
  passwords: Passwords
  port: number
}): Promise<LocalPostgres> {
  const { bin, dataDir, user, passwords, port } = part
  const child = startChild(
    join(bin, 'postgres'),
    [
      ...['-D', dataDir, '-p', String(port), '-c', 'listen_addresses=127.0.0.1', '-c', 'unix_socket_directories='],
      // Restored from an archive it answers once it can be written again: nothing is done on a copy that still recovers.
      ...['-c', 'hot_standby=off'],
    ],
    { user, deathSignal: 'INT' },
  )
  const urlOf = (name: string, password: string, database: string): string =>
    `postgres://${name}:${password}@127.0.0.1:${port}/${database}`
  const adminUrl = urlOf(superuser, passwords.admin, 'postgres')
  try {
    await waitUntilReady(child, adminUrl)
    await ensureDatabase(adminUrl, passwords.role)
  } catch (error) {
    await child.stop('SIGINT')
    throw error
  }
  return {
    port,
    url: urlOf(role, passwords.role, role),
    adminUrl,
    close: () => child.stop('SIGINT'),
    ended: child.ended,
  }
}

/** The newest version that Debian has installed. */
function programsDir(): string {
  const versions = existsSync(versionsDir) ? readdirSync(versionsDir) : []
  const [newest] = versions
    .filter(version => existsSync(join(versionsDir, version, 'bin', 'initdb')))
    .sort((one, other) => Number(other) - Number(one))
  if (newest === undefined)
    throw new Error(`${versionsDir} has no PostgreSQL: install Debian’s postgresql, or set DATABASE_URL`)
  return join(versionsDir, newest, 'bin')
}

interface Passwords {
  admin: string
  role: string
}

function readPasswords(folder: string): Passwords {
  const path = join(folder, 'passwords.json')
  if (existsSync(path)) return readSecret(path, 'nobody enters the database beside it') as Passwords
  const made = { admin: randomBytes(24).toString('base64url'), role: randomBytes(24).toString('base64url') }
  writeSecret(path, JSON.stringify(made))
  return made
}

async function makeCluster(part: {
  bin: string
  folder: string
  dataDir: string
  user: SystemUser | null
  password: string
}): Promise<void> {
  const { bin, folder, dataDir, user, password } = part
  // An interrupted initdb leaves half a cluster, which is worth nothing.
  rmSync(dataDir, { recursive: true, force: true })
  mkdirSync(dataDir, { mode: 0o700 })
  const passwordFile = join(folder, 'initdb-password')
  writeFileSync(passwordFile, `${password}\n`, { mode: 0o600 })
  if (user !== null) for (const path of [dataDir, passwordFile]) chownSync(path, user.uid, user.gid)
  try {
    await runProgram(
      join(bin, 'initdb'),
      [
        '-D',
        dataDir,
        '-U',
        superuser,
        `--pwfile=${passwordFile}`,
        '--auth=scram-sha-256',
        '--encoding=UTF8',
        '--locale=C.UTF-8',
        '--data-checksums',
      ],
      { user },
    )
  } finally {
    rmSync(passwordFile, { force: true })
  }
}

/**
 * A cluster whose control plane was killed may still be on its way down. One that has ended, but whom nobody has taken the
 * end of yet, still has its process id, and PostgreSQL would refuse to start beside it.
 */
export async function endLeftover(dataDir: string): Promise<void> {
  const pidFile = join(dataDir, 'postmaster.pid')
  const until = Date.now() + startLimitMs
  while (existsSync(pidFile) && Date.now() < until) {
    const pid = Number(readFileSync(pidFile, 'utf8').split('\n')[0])
    if (!Number.isInteger(pid)) return
    if (runsThere(pid, dataDir)) process.kill(pid, 'SIGINT')
    else if (!isZombie(pid)) return
    await new Promise(resolve => setTimeout(resolve, leftoverLookMs))
  }
}
const leftoverLookMs = 200

function runsThere(pid: number, dataDir: string): boolean {
  return ofProcess(pid, 'cmdline').split('\0').includes(dataDir)
}

/** proc(5), /proc/PID/stat: the state is the first field after the name in parentheses. */
const isZombie = (pid: number): boolean => /\) Z [^)]*$/.test(ofProcess(pid, 'stat'))

/** '' where there is no such process. */
function ofProcess(pid: number, file: 'cmdline' | 'stat'): string {
  try {
    return readFileSync(`/proc/${pid}/${file}`, 'utf8')
  } catch {
    return ''
  }
}

async function waitUntilReady(child: Child, url: string): Promise<void> {
  const until = Date.now() + startLimitMs
  let why = ''
  while (Date.now() < until) {
    const sql = postgres(url, { max: 1, connect_timeout: 2, onnotice: () => {} })
    try {
      await sql`select 1`
      return
    } catch (error) {
      why = error instanceof Error ? error.message : String(error)
    } finally {
      await sql.end({ timeout: 1 })
    }
    if (child.hasEnded()) throw new Error(`PostgreSQL did not start: ${child.lastWords()}`)
    await new Promise(resolve => setTimeout(resolve, 50))
  }
  throw new Error(`PostgreSQL did not answer within ${startLimitMs / 1000} s: ${why}`)
}

async function ensureDatabase(adminUrl: string, password: string): Promise<void> {
  const sql = postgres(adminUrl, { max: 1, onnotice: () => {} })
  try {
    const [known] = await sql`select 1 from pg_roles where rolname = ${role}`
    // The password is ours and base64url, and utility statements take no parameters.
    if (known === undefined) await sql.unsafe(`create role ${role} login password '${password}'`)
    const [database] = await sql`select 1 from pg_database where datname = ${role}`
    if (database === undefined) await sql.unsafe(`create database ${role} owner ${role}`)
  } finally {
    await sql.end({ timeout: 5 })
  }
}
