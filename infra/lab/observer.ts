/**
 * Reads and writes at its targets every 10 ms, on open connections and on fresh ones, and notes what was served by
 * which database instance and when. Several run at once: in the client's namespace, and inside each host's network.
 *
 * `observer.ts --targets FILE --output FILE [--rhythm-ms 10]`: the targets are a JSON object of names and URIs, in a file
 * because they hold passwords; one that only host `a` can answer is named `a:…`. Writes its {@link ServedSpan}s as JSON
 * each second, at SIGUSR2 and at SIGTERM. With `--prepare` it only makes the table it needs, at the first target.
 */

import { readFileSync, renameSync, writeFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { parseArgs } from 'node:util'
import { dropClient, nowMs, openClient, within } from './database-client.ts'
import { Observations, type Operation } from './observations.ts'

const PROBE_TABLE = 'lab_probe'
/** A frozen gate answers nothing; its open connections are kept so long, because they are the first to see it thaw. */
const REQUEST_LIMIT_MS = 2_000
/** Fresh connections cost a process on the server each, so they come less often than requests. */
const FRESH_EVERY_MS = 250
const FRESH_LIMIT_MS = 1_000
const SAVE_EVERY_MS = 1_000

const READ = 'select pg_postmaster_start_time()::text as instance'
const WRITE = `insert into ${PROBE_TABLE} as p (target, n) values ($1, 1)
  on conflict (target) do update set n = p.n + 1 returning pg_postmaster_start_time()::text as instance`

interface Target {
  name: string
  uri: string
}

interface Probe {
  target: Target
  operation: Operation
  rhythmMs: number
  seen: Observations
}

type Rows = { instance: string }[]

/** One request after the other on one connection, each at its beat. */
async function probeForever({ target, operation, rhythmMs, seen }: Probe): Promise<never> {
  let client = openClient(target.uri, 'understudy-lab-observer')
  for (;;) {
    const startMs = nowMs()
    try {
      const query = operation === 'read' ? client.unsafe(READ) : client.unsafe(WRITE, [target.name], { prepare: true })
      const [row] = (await within(query, REQUEST_LIMIT_MS)) as unknown as Rows
      if (row !== undefined) seen.add({ ...row, target: target.name, operation, startMs, endMs: nowMs() })
    } catch {
      // Refused, reset, read-only or silent: not served, which is an observation too (its absence).
      if (nowMs() - startMs >= REQUEST_LIMIT_MS) {
        dropClient(client)
        client = openClient(target.uri, 'understudy-lab-observer')
      }
    }
    await sleep(Math.max(1, startMs + rhythmMs - nowMs()))
  }
}

/** A new connection each time: an open one may live on where nobody else could connect, and the other way round. */
async function connectForever({ target, seen }: Probe): Promise<never> {
  for (;;) {
    const startMs = nowMs()
    const client = openClient(target.uri, 'understudy-lab-observer')
    await within(client.unsafe(READ) as unknown as Promise<Rows>, FRESH_LIMIT_MS).then(
      ([row]) => row && seen.add({ ...row, target: target.name, operation: 'read', startMs, endMs: nowMs() }),
      () => {},
    )
    dropClient(client)
    await sleep(Math.max(1, startMs + FRESH_EVERY_MS - nowMs()))
  }
}

async function prepareProbeTable(uri: string): Promise<void> {
  const client = openClient(uri, 'understudy-lab-observer')
  try {
    await client.unsafe(`create table if not exists ${PROBE_TABLE} (target text primary key, n bigint not null)`)
  } finally {
    await client.end({ timeout: 1 })
  }
}

function save(file: string, seen: Observations): void {
  writeFileSync(`${file}.new`, JSON.stringify(seen.all()))
  renameSync(`${file}.new`, file)
}

async function main(): Promise<void> {
  const options = {
    output: { type: 'string' },
    targets: { type: 'string' },
    prepare: { type: 'boolean', default: false },
    'rhythm-ms': { type: 'string', default: '10' },
  } as const
  const { values } = parseArgs({ options })
  const { output, targets: targetsFile } = values
  if (targetsFile === undefined) throw new Error('The observer needs --targets.')
  const named = JSON.parse(readFileSync(targetsFile, 'utf8')) as { [name: string]: string }
  const targets = Object.entries(named).map(([name, uri]) => ({ name, uri }))
  if (values.prepare) return prepareProbeTable(targets[0]!.uri)
  if (output === undefined) throw new Error('The observer needs --output.')
  const seen = new Observations()
  const stop = (): void => {
    save(output, seen)
    process.exit(0)
  }
  process.once('SIGTERM', stop).once('SIGINT', stop)
  // Whoever judges meanwhile need not wait for the next second.
  process.on('SIGUSR2', () => save(output, seen))
  setInterval(() => save(output, seen), SAVE_EVERY_MS)
  const rhythmMs = Number(values['rhythm-ms'])
  for (const target of targets) {
    for (const operation of ['read', 'write'] as const) void probeForever({ target, operation, rhythmMs, seen })
    void connectForever({ target, operation: 'read', rhythmMs, seen })
  }
  process.stdout.write('observing\n')
}

if (import.meta.main) await main()
