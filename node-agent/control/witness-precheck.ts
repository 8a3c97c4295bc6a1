import type { z } from 'zod'
import type { verbs } from '../../shared/contract/documents.ts'
import { witnessPath } from '../../shared/contract/witness.ts'
import { figuresOf } from '../../shared/figures.ts'
import { LastAddresses, trustOf, WitnessConnection } from '../witness/connection.ts'
import type { HostFinding } from './host-prechecks.ts'

type Wanted = NonNullable<z.output<typeof verbs.prechecks>['witness']>

/** The first opens the connection, which a running pair keeps open; then as many as show a slow way. */
const samples = 10
const answerLimitMs = 5_000

/** Whether the witness is reached from here, is the one that is meant, and answers within what the profile admits. */
export async function witnessReached({ url, fingerprint, limitMs }: Wanted): Promise<HostFinding> {
  const finding = {
    code: 'witness',
    limit: `${url} answers within ${Math.floor(limitMs)} ms, which the profile admits for a vote`,
    remedy: 'let this host reach it, place it nearer, or choose a profile with longer leases',
  }
  const connection = new WitnessConnection({ url, trust: trustOf({ fingerprint }) }, new LastAddresses())
  const tookMs: number[] = []
  try {
    for (let sample = 0; sample <= samples; sample++) {
      const began = performance.now()
      const why = await askedHealth(connection)
      if (why !== null) return { ...finding, severity: 'blocking', measured: why }
      if (sample > 0) tookMs.push(performance.now() - began)
    }
  } finally {
    connection.close()
  }
  const { p50Ms, maxMs } = figuresOf(tookMs)
  const measured = `${p50Ms.toFixed(1)} ms there and back, ${maxMs.toFixed(1)} ms at most of ${samples}`
  // One slow answer of ten is a warning: the vote itself writes to a disk, too, and is measured while the pair runs.
  return { ...finding, severity: p50Ms > limitMs ? 'blocking' : maxMs > limitMs ? 'warning' : 'passed', measured }
}

function askedHealth(connection: WitnessConnection): Promise<string | null> {
  return new Promise(resolve => {
    connection.exchange(
      { method: 'GET', path: witnessPath.health, headers: {}, body: null, limitMs: answerLimitMs },
      result => {
        if (!result.ok) resolve(result.why)
        else resolve(result.status === 200 ? null : `it answers with status ${result.status}: it is no witness`)
      },
    )
  })
}
