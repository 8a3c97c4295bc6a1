/**
 * One client connection in the client's network, watched closely. As a program:
 *
 *   client-probe.ts ask URI_FILE OUTPUT     asks on it every 2 ms, one request after the other, until it fails
 *   client-probe.ts idle URI_FILE OUTPUT    opens it, hears the server once, and says nothing more
 *
 * Both write what they saw to OUTPUT at SIGTERM and when the connection ends. Times are CLOCK_MONOTONIC in ms.
 */

import { readFileSync, renameSync, writeFileSync } from 'node:fs'
import { connect } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { errorCode, nowMs, openClient } from '../../infra/lab/database-client.ts'

const ASK_EVERY_MS = 2
/** Asks the server whether it speaks TLS (manual, 55.7 "Message Formats"): it answers with one byte and then waits. */
const SSL_REQUEST = Buffer.from([0, 0, 0, 8, 4, 210, 22, 47])

export interface ProbeReport {
  answers: number
  /** When the newest answer came. */
  lastAnswerMs: number
  /** When the oldest request without an answer left; null: each has been answered. */
  unansweredSinceMs: number | null
  /** The server processes that answered: more than one means that the connection was made anew. */
  backends: number[]
  /** The longest time between two answers. */
  longestGapMs: number
  /** When the connection ended, and with which error; null: it lives. */
  ended: { atMs: number; code: string } | null
}

async function main([mode, uriFile = '', output = '']: string[]): Promise<void> {
  const seen: ProbeReport = {
    answers: 0,
    lastAnswerMs: 0,
    unansweredSinceMs: null,
    backends: [],
    longestGapMs: 0,
    ended: null,
  }
  const save = (): void => {
    writeFileSync(`${output}.new`, JSON.stringify(seen))
    renameSync(`${output}.new`, output)
  }
  const end = (code: string): void => {
    seen.ended ??= { atMs: nowMs(), code }
    save()
    process.exit(0)
  }
  const client = openClient(readFileSync(uriFile, 'utf8').trim(), 'understudy-lab-probe')
  const ask = async (): Promise<void> => {
    seen.unansweredSinceMs = nowMs()
    const [row] = await client.unsafe('select pg_backend_pid() as pid')
    const answeredMs = nowMs()
    if (seen.answers > 0) seen.longestGapMs = Math.max(seen.longestGapMs, answeredMs - seen.lastAnswerMs)
    seen.answers += 1
    seen.lastAnswerMs = answeredMs
    seen.unansweredSinceMs = null
    const pid = Number(row?.pid)
    if (!seen.backends.includes(pid)) seen.backends.push(pid)
  }
  process.once('SIGTERM', () => {
    save()
    process.exit(0)
  })
  process.on('SIGUSR2', save)
  if (mode === 'idle') {
    const { hostname, port } = new URL(readFileSync(uriFile, 'utf8').trim())
    // No keepalive: nothing but the server's side can end it.
    const socket = connect({ host: hostname.replace(/^\[|\]$/g, ''), port: Number(port), keepAlive: false })
    socket.once('connect', () => socket.write(SSL_REQUEST))
    socket.once('data', () => process.stdout.write('probing\n'))
    socket.once('error', error => end(errorCode(error)))
    socket.once('close', () => end('closed'))
    return
  }
  await ask()
  process.stdout.write('probing\n')
  for (;;) {
    await sleep(ASK_EVERY_MS)
    try {
      await ask()
    } catch (error) {
      end(errorCode(error))
    }
  }
}

if (import.meta.main) await main(process.argv.slice(2))
