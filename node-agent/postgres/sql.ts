import postgres from 'postgres'
import type { ClusterSpec } from './cluster.ts'

/** A connection of the agent to its own server, by the Unix socket, which passes a shut gate. */
export type Sql = postgres.Sql
export type Row = postgres.Row

/** A statement that takes longer than this is given up with its connection. */
const connectLimitS = 2

export function connect(
  spec: ClusterSpec,
  {
    database = 'postgres',
    settings = {},
    closed = () => {},
  }: { database?: string; settings?: Record<string, string>; closed?: () => void } = {},
): Sql {
  return postgres({
    host: `${spec.socketDir}/.s.PGSQL.${spec.port}`,
    path: `${spec.socketDir}/.s.PGSQL.${spec.port}`,
    user: spec.superuser,
    database,
    max: 1,
    idle_timeout: 0,
    max_lifetime: null,
    connect_timeout: connectLimitS,
    fetch_types: false,
    // A statement on a dead connection fails at once; the caller decides when to try again.
    backoff: () => 0.02,
    connection: { application_name: 'understudy agent', statement_timeout: 0, lock_timeout: 0, ...settings },
    onnotice: () => {},
    onclose: closed,
  })
}

/** Never waits for a server that hangs. */
export function disconnect(sql: Sql): void {
  void sql.end({ timeout: 0 }).catch(() => {})
}

/** The value, or an error once the time is over; what runs on is not waited for. */
export function within<T>(limitMs: number, what: string, work: Promise<T>): Promise<T> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error(`${what} did not end within ${limitMs} ms`)), limitMs)
    work.then(resolve, reject).finally(() => clearTimeout(timer))
  })
}
