/** The settings of a client that wants to be back within a second after a takeover; writer and observer use them. */

import postgres from 'postgres'

/** A connection whose server vanished without a word is noticed after this silence (TCP keepalive, 1 s apart). */
const KEEP_ALIVE_S = 1
/** A SYN sent into a closing gate is lost; the kernel repeats it after 1 s, and this leaves room for that. */
const CONNECT_TIMEOUT_S = 2
/** Between two attempts to connect: a refusal costs nobody anything, waiting longer costs service. */
const RECONNECT_PAUSE_S = 0.01

export type Client = postgres.Sql

export type Notice = postgres.Notice

/**
 * One connection, opened by the first query and again whenever it was lost.
 * @param onNotice gets the server's notices and warnings; without it they are dropped
 */
export function openClient(uri: string, applicationName: string, onNotice?: (notice: Notice) => void): Client {
  return postgres(uri, {
    ...addressOf(uri),
    max: 1,
    keep_alive: KEEP_ALIVE_S,
    connect_timeout: CONNECT_TIMEOUT_S,
    backoff: () => RECONNECT_PAUSE_S,
    fetch_types: false,
    onnotice: onNotice ?? (() => {}),
    connection: { application_name: applicationName },
  })
}

/** One connection by a Unix socket. */
export const openLocalClient = (to: { path: string; user: string; database: string }): Client =>
  postgres({ ...to, host: to.path, max: 1, fetch_types: false, onnotice: () => {} })

/** postgres.js takes an IPv6 address in a URI for a name and a port; a list is left alone, though its types know none. */
function addressOf(uri: string): { host: string; port: number } {
  const { hostname, port } = new URL(uri)
  const lists: unknown = { host: [hostname.replace(/^\[|\]$/g, '')], port: [Number(port)] }
  return lists as { host: string; port: number }
}

/** Gives up a client at once, with whatever it has in flight. */
export function dropClient(client: Client): void {
  client.end({ timeout: 0 }).catch(() => {})
}

/** Rejects with code `DEADLINE` when the answer takes longer; the query itself may still take effect. */
export async function within<T>(answer: Promise<T>, limitMs: number): Promise<T> {
  let timer: NodeJS.Timeout | undefined
  const deadline = new Promise<never>((_, reject) => {
    const late = Object.assign(new Error(`No answer within ${limitMs} ms.`), { code: 'DEADLINE' })
    timer = setTimeout(() => reject(late), limitMs)
  })
  try {
    return await Promise.race([answer, deadline])
  } finally {
    clearTimeout(timer)
  }
}

/** SQLSTATE, errno name or postgres.js code of an error. */
export function errorCode(error: unknown): string {
  const code = (error as { code?: unknown } | null)?.code
  return typeof code === 'string' ? code : String(error)
}

/** CLOCK_MONOTONIC in ms: the same clock in every process of this machine outside the lab's hosts. */
export function nowMs(): number {
  return Number(process.hrtime.bigint()) / 1e6
}
