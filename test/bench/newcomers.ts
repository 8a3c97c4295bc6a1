/**
 * Clients that were not there before: a fresh connection at each beat, each held until it is answered or gives up, with
 * both times noted. One that begins while no host answers waits for the kernel to repeat its SYN, about a second.
 *
 * Runs in the client's namespace: `newcomers.ts --uri-file FILE --log FILE [--every-ms 100]`; a line is "start end" in ms
 * of CLOCK_MONOTONIC.
 */
import { appendFileSync, readFileSync } from 'node:fs'
import { parseArgs } from 'node:util'
import { dropClient, nowMs, openClient, within } from '../../infra/lab/database-client.ts'

/** Beyond the second repetition of a SYN (after 1 s and 3 s) it says nothing about a takeover. */
const LIMIT_MS = 5000

const { values } = parseArgs({
  options: { 'uri-file': { type: 'string' }, log: { type: 'string' }, 'every-ms': { type: 'string', default: '100' } },
})
const { log } = values
if (log === undefined || values['uri-file'] === undefined) throw new Error('Newcomers need --uri-file and --log.')
const uri = readFileSync(values['uri-file'], 'utf8').trim()

async function connectOnce(file: string): Promise<void> {
  const startMs = nowMs()
  const client = openClient(uri, 'understudy-lab-newcomer')
  try {
    await within(client.unsafe('select 1'), LIMIT_MS)
    appendFileSync(file, `${startMs.toFixed(1)} ${nowMs().toFixed(1)}\n`)
  } catch {
    // It gave up: not a figure of a takeover.
  } finally {
    dropClient(client)
  }
}

setInterval(() => void connectOnce(log), Number(values['every-ms']))
process.stdout.write('connecting\n')
