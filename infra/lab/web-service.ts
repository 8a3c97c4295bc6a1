/**
 * The lab's example of a protected service: a small web service on the VIP that writes to the database with each request
 * and tells where it runs. The agent starts it after the promotion and stops it before a demotion; role, epoch and
 * reason come in its environment.
 *
 * `web-service.ts --port 8080 --database-uri-file FILE`: the URI is in a file because it holds a password.
 */

import { readFileSync } from 'node:fs'
import { createServer, type ServerResponse } from 'node:http'
import { parseArgs } from 'node:util'
import { dropClient, errorCode, openClient, within } from './database-client.ts'

const VISITS_TABLE = 'web_visits'
/** A commit may wait for the backup, but a visitor should hear something. */
const REQUEST_LIMIT_MS = 3_000

interface Place {
  pair: string
  host: string
  role: string
  epoch: string
  reason: string
}

function place(env: NodeJS.ProcessEnv): Place {
  return {
    pair: env.UNDERSTUDY_PAIR ?? '',
    host: env.UNDERSTUDY_NODE ?? '',
    role: env.UNDERSTUDY_ROLE ?? '',
    epoch: env.UNDERSTUDY_EPOCH ?? '',
    reason: env.UNDERSTUDY_REASON ?? '',
  }
}

function answer(response: ServerResponse, status: number, body: object): void {
  response.writeHead(status, { 'content-type': 'application/json', 'cache-control': 'no-store' })
  response.end(`${JSON.stringify(body)}\n`)
}

function serve(options: { port: number; databaseUri: string }): void {
  const here = place(process.env)
  let database = openClient(options.databaseUri, 'web-service')
  let tableIsThere = false

  const visit = async (): Promise<number> => {
    if (!tableIsThere) {
      await database.unsafe(
        `create table if not exists ${VISITS_TABLE} (n bigint generated always as identity, host text)`,
      )
      tableIsThere = true
    }
    const rows = await database.unsafe(`insert into ${VISITS_TABLE} (host) values ($1) returning n`, [here.host])
    return Number(rows[0]?.n)
  }
  const server = createServer((request, response) => {
    if (request.url === '/health') return answer(response, 200, here)
    within(visit(), REQUEST_LIMIT_MS).then(
      number => answer(response, 200, { visit: number, ...here }),
      error => {
        dropClient(database)
        database = openClient(options.databaseUri, 'web-service')
        answer(response, 503, { error: errorCode(error), ...here })
      },
    )
  })
  // Every address: the VIP may not be here yet, and the gate decides who gets through.
  server.listen(options.port, '::')
  process.once('SIGTERM', () => {
    server.close()
    server.closeAllConnections()
    dropClient(database)
  })
}

if (import.meta.main) {
  const options = { port: { type: 'string' }, 'database-uri-file': { type: 'string' } } as const
  const { values } = parseArgs({ options })
  const file = values['database-uri-file']
  if (values.port === undefined || file === undefined) throw new Error('It needs --port and --database-uri-file.')
  serve({ port: Number(values.port), databaseUri: readFileSync(file, 'utf8').trim() })
}
