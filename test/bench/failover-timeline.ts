import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { HOSTS, type HostName } from '../../infra/lab/addresses.ts'
import { nowMs } from '../../infra/lab/database-client.ts'
import { agentPaths } from '../../infra/lab/product.ts'
import type { WriteOutage } from '../../infra/lab/write-log.ts'
import type { Decision } from '../../node-agent/decisions.ts'

/** Before the last write the fault happens, after the first one the demoted host tidies up. */
const AROUND_MS = 40

/**
 * Where the time of an outage went: what both agents decided in it, in ms after the last acknowledged write. The hosts of
 * the lab share one wall clock, so the lines of both can be put in order.
 */
export function timeline(lab: string, outage: WriteOutage): string[] {
  const wallOfMonotonic = Date.now() - nowMs()
  const fromMs = outage.fromMs + wallOfMonotonic
  const toMs = outage.toMs + wallOfMonotonic
  return HOSTS.flatMap(host => decisionsOf(lab, host).map(decision => ({ host, ...decision })))
    .filter(({ wallMs }) => wallMs > fromMs - AROUND_MS && wallMs < toMs + AROUND_MS)
    .toSorted((one, other) => one.wallMs - other.wallMs)
    .map(({ host, wallMs, why }) => `${(wallMs - fromMs).toFixed(0).padStart(6)} ms  ${host}  ${why}`)
    .concat(`${(toMs - fromMs).toFixed(0).padStart(6)} ms     the first write is acknowledged again`)
}

export function decisionsOf(lab: string, host: HostName): Decision[] {
  const text = readFileSync(join(agentPaths(lab, host).stateDir, 'decisions.jsonl'), 'utf8')
  return text
    .split('\n')
    .slice(0, -1)
    .map(line => JSON.parse(line) as Decision)
}
