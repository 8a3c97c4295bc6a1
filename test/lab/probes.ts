/** Starts and reads the client's probes (client-probe.ts). */

import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { labPaths } from '../../infra/lab/addresses.ts'
import { nowMs } from '../../infra/lab/database-client.ts'
import { nodeCommand, startTool } from '../../infra/lab/fabric.ts'
import { databaseUri, until } from '../../infra/lab/pair.ts'
import { isAlive, signal } from '../../infra/lab/processes.ts'
import type { ProbeReport } from './client-probe.ts'

const START_BOUND_MS = 15_000

export interface Probe {
  /** Ends it and tells what it saw. */
  end: () => Promise<ProbeReport>
  /** Until an answer comes, or the connection has ended. */
  untilAnswered: (limitMs: number) => Promise<void>
  untilEnded: (limitMs: number) => Promise<NonNullable<ProbeReport['ended']>>
}

let number = 0

/** One connection through the virtual address, see client-probe.ts. */
export async function openProbe(lab: string, mode: 'ask' | 'idle'): Promise<Probe> {
  const { runDir } = labPaths(lab)
  number += 1
  const name = `probe-${process.pid}-${number}`
  const file = join(runDir, `${name}.json`)
  const uriFile = join(runDir, `${name}.uri`)
  writeFileSync(uriFile, databaseUri(lab) ?? '', { mode: 0o600 })
  const command = nodeCommand(join(import.meta.dirname, 'client-probe.ts'), [mode, uriFile, file])
  const pid = await startTool(lab, 'c', command, `${name}.log`)
  const log = join(runDir, 'log', `${name}.log`)
  await until(START_BOUND_MS, `The probe ${name} did not start`, async () =>
    existsSync(log) && readFileSync(log, 'utf8').includes('probing') ? true : null,
  )
  const read = (): ProbeReport => JSON.parse(readFileSync(file, 'utf8')) as ProbeReport
  return {
    end: async () => {
      signal([pid], 'SIGTERM')
      while (isAlive(pid)) await sleep(5)
      return read()
    },
    untilAnswered: async limitMs => {
      const fromMs = nowMs()
      await until(limitMs, `${name} gets no answer`, async () => {
        signal([pid], 'SIGUSR2')
        if (!existsSync(file)) return null
        const { ended, lastAnswerMs } = read()
        return ended !== null || lastAnswerMs > fromMs ? true : null
      })
    },
    untilEnded: limitMs =>
      until(limitMs, `The connection of ${name} did not end`, async () => (existsSync(file) ? read().ended : null)),
  }
}
