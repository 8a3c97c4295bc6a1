/**
 * The load: connections that insert numbered rows through the VIP, and note each acknowledged one in a file outside of
 * the database. Every row is retried until it is acknowledged, always under its own id.
 *
 * Runs in the client's namespace: `writer.ts --uri-file FILE --log FILE [--connections 8] [--interval-ms 10] [--for-ms N]`,
 * ends on SIGTERM. Format of the file: write-log.ts.
 */

import { createWriteStream, readFileSync, type WriteStream } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { parseArgs } from 'node:util'
import { type Client, dropClient, errorCode, type Notice, nowMs, openClient, within } from './database-client.ts'
import { idOf, WRITE_TABLE, WRITER_NAME, writeLogLine } from './write-log.ts'

/** Longer than a takeover; then the connection is taken for dead and the row is sent again on another. */
const REQUEST_LIMIT_MS = 3_000
const RETRY_PAUSE_MS = 5
/** Rows in flight when asked to stop may still be acknowledged for so long. */
const STOP_LIMIT_MS = 5_000

interface WriterOptions {
  uri: string
  log: WriteStream
  connections: number
  intervalMs: number
}

async function prepareTable(uri: string): Promise<void> {
  const client = openClient(uri, WRITER_NAME)
  try {
    await client.unsafe(
      `create table if not exists ${WRITE_TABLE} (id bigint primary key, attempts int not null, written_at timestamptz not null default clock_timestamp())`,
    )
  } finally {
    await client.end({ timeout: 1 })
  }
}

function insert(client: Client, id: bigint): Promise<unknown> {
  // A repeated id is written again, not skipped: a transaction that writes nothing would be acknowledged without
  // waiting for the backup. `attempts` above 1 counts the first tries that had taken effect after all.
  return client.unsafe(
    `insert into ${WRITE_TABLE} (id, attempts) values ($1, 1) on conflict (id) do update set attempts = ${WRITE_TABLE}.attempts + 1`,
    [String(id)],
    { prepare: true },
  )
}

/**
 * A wait for the backup that was cancelled ends in success with this warning (manual, 20.6.1 "synchronous_commit"; the
 * text is PostgreSQL's, syncrep.c). Such a commit may vanish with its host, so it is no acknowledgement.
 */
const isLocalOnly = (notice: Notice): boolean => /might not have been replicated/.test(String(notice.detail))

async function writeForever(connection: number, options: WriterOptions, stop: AbortSignal): Promise<void> {
  let localOnly = false
  const open = (): Client =>
    openClient(options.uri, WRITER_NAME, notice => {
      localOnly ||= isLocalOnly(notice)
    })
  let client = open()
  for (let sequence = 1; !stop.aborted; sequence += 1) {
    const id = idOf(connection, sequence)
    const sentMs = nowMs()
    for (let attempt = 1; ; attempt += 1) {
      try {
        localOnly = false
        await within(insert(client, id), REQUEST_LIMIT_MS)
        if (localOnly) throw Object.assign(new Error('The row is on one host alone.'), { code: 'LOCAL_ONLY' })
        options.log.write(writeLogLine({ kind: 'acknowledged', id, sentMs, ackMs: nowMs(), attempts: attempt }))
        break
      } catch (error) {
        options.log.write(writeLogLine({ kind: 'error', id, atMs: nowMs(), code: errorCode(error) }))
        if (errorCode(error) === 'DEADLINE') {
          dropClient(client)
          client = open()
        }
        if (stop.aborted) break
        await sleep(RETRY_PAUSE_MS)
      }
    }
    await sleep(untilNextTurn(connection, options))
  }
  dropClient(client)
}

/**
 * Connections take turns on a grid, evenly apart: after an outage all of them would go on together, and the pauses
 * between their common writes would be measured as outages.
 */
function untilNextTurn(connection: number, { connections, intervalMs }: WriterOptions): number {
  const offsetMs = (intervalMs * connection) / connections
  return intervalMs - ((nowMs() - offsetMs) % intervalMs)
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      'uri-file': { type: 'string' },
      log: { type: 'string' },
      connections: { type: 'string', default: '8' },
      'interval-ms': { type: 'string', default: '10' },
      'for-ms': { type: 'string' },
    },
  })
  const uriFile = values['uri-file']
  if (uriFile === undefined || values.log === undefined) throw new Error('The writer needs --uri-file and --log.')
  const uri = readFileSync(uriFile, 'utf8').trim()
  const stop = new AbortController()
  const requestStop = (): void => {
    stop.abort()
    setTimeout(() => process.exit(0), STOP_LIMIT_MS).unref()
  }
  process.once('SIGTERM', requestStop).once('SIGINT', requestStop)
  await prepareTable(uri)
  const log = createWriteStream(values.log, { flags: 'a' })
  const options = {
    uri,
    log,
    connections: Number(values.connections),
    intervalMs: Number(values['interval-ms']),
  }
  process.stdout.write('writing\n')
  if (values['for-ms'] !== undefined) setTimeout(requestStop, Number(values['for-ms'])).unref()
  const connections = Array.from({ length: options.connections }, (_, index) => index + 1)
  await Promise.all(connections.map(connection => writeForever(connection, options, stop.signal)))
  await new Promise(resolve => log.end(resolve))
  process.exit(0)
}

if (import.meta.main) await main()
