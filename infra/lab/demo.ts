/**
 * `npm run demo`: a pair under load loses its primary, gets it back, and changes roles as planned; then the account of
 * what it cost. Exit code 0 only if nothing was lost, one host served at each instant, and the roles ended right.
 */

import { parseArgs } from 'node:util'
import { otherNode } from '../../shared/protocol/nodes.ts'
import { ensureDebianPackages, LAB_PACKAGES, unsuitable } from '../dev/debian-packages.ts'
import { DATABASE_PORT, type HostName, VIP } from './addresses.ts'
import { hostPaths } from './hosts.ts'
import { down, up } from './lab.ts'
import { lastWords, statuses, switchOver, untilProtected, untilServing } from './pair.ts'
import { runProgram } from './program.ts'
import { Trial, type TrialVerdict } from './trial.ts'

const REJOIN_LIMIT_MS = 60_000

const beganMs = performance.now()
const say = (line: string): void => {
  process.stdout.write(`${((performance.now() - beganMs) / 1000).toFixed(1).padStart(5)} s  ${line}\n`)
}

/** The story. Resolves to the sentences that must not be: empty when all went right. */
async function play(lab: string): Promise<string[]> {
  const first = await untilProtected(lab)
  const second = otherNode(first)
  say(`host ${first} is primary and protected; 8 connections write through ${VIP.v4}:${DATABASE_PORT}`)
  const trial = await Trial.begin(lab)
  await trial.measure('calm', async () => {})

  say(`power cut of host ${first}`)
  const cut = await trial.measure(`power cut of ${first}`, async () => {
    await trial.inject({ kind: 'power', host: first })
    await untilServing(lab, second)
  })
  say(`host ${second} serves; writes stood still for ${cut.outage.gapMs.toFixed(0)} ms`)

  say(`host ${first} boots`)
  await trial.measure(`return of ${first}`, async () => {
    await trial.inject({ kind: 'power-on', host: first })
    await untilProtected(lab, REJOIN_LIMIT_MS)
  })
  say(`host ${first} has rejoined as backup; protected again`)

  say(`planned switchover back to host ${first}`)
  const switched = await trial.measure('planned switchover', async () => {
    await switchOver(lab, second)
  })
  say(`host ${first} serves; writes stood still for ${switched.outage.gapMs.toFixed(0)} ms`)
  await untilProtected(lab, REJOIN_LIMIT_MS)

  const verdict = await trial.end()
  report(trial, verdict)
  return [...wrongs(verdict), ...(await wrongRoles(lab, first))]
}

function report(trial: Trial, { writes, judgement }: TrialVerdict): void {
  const out = (line: string): void => {
    process.stdout.write(`${line}\n`)
  }
  out('\nstep                        longest write outage   client errors')
  for (const { name, outage, errors } of trial.steps) {
    const counts = Object.entries(errors).map(([code, count]) => `${count} × ${code}`)
    out(`${name.padEnd(28)}${`${outage.gapMs.toFixed(0)} ms`.padStart(12)}           ${counts.join(', ') || 'none'}`)
  }
  for (const host of ['a', 'b'] as const) {
    const { acknowledged, lost, duplicates } = writes[host]
    out(`host ${host}: ${acknowledged} acknowledged, ${lost.length} lost, ${duplicates} written twice by a retry`)
  }
  const answers = judgement.instances.reduce((sum, { reads, writes }) => sum + reads + writes, 0)
  const served = judgement.instances.map(instance => instance.host ?? '?').join(', then ')
  out(`observed: ${answers} answers, served by host ${served}`)
  out(`two hosts serving at one instant: ${judgement.violations.length === 0 ? 'never seen' : 'SEEN'}\n`)
}

function wrongs({ writes, judgement }: TrialVerdict): string[] {
  const lost = (['a', 'b'] as const)
    .filter(host => writes[host].lost.length > 0)
    .map(
      host => `host ${host} lacks ${writes[host].lost.length} acknowledged rows, the first is ${writes[host].lost[0]}`,
    )
  const double = judgement.violations.map(
    ({ instances: [one, other], certainMs }) =>
      `host ${one.host} (${one.instance}) and host ${other.host} (${other.instance}) both served for ${certainMs.toFixed(0)} ms`,
  )
  return [...lost, ...double]
}

async function wrongRoles(lab: string, primary: HostName): Promise<string[]> {
  const seen = await statuses(lab)
  const backup = otherNode(primary)
  const right = seen[primary]?.serving === true && seen[backup]?.role === 'backup' && seen[backup]?.serving === false
  return right
    ? []
    : [`the roles ended wrong: ${primary} is ${seen[primary]?.role}, ${backup} is ${seen[backup]?.role}`]
}

async function main(): Promise<number> {
  const options = { name: { type: 'string', default: 'demo' }, keep: { type: 'boolean', default: false } } as const
  const { name, keep } = parseArgs({ options }).values
  const reason = unsuitable()
  if (reason !== null) throw new Error(reason)
  await ensureDebianPackages(LAB_PACKAGES, { why: 'the lab', say })
  try {
    await up({ name, say })
    const wrong = await play(name)
    for (const sentence of wrong) say(`WRONG: ${sentence}`)
    say(wrong.length === 0 ? 'nothing was lost' : 'the demo failed')
    return wrong.length === 0 ? 0 : 1
  } catch (error) {
    const kept = keep ? `\nThe lab is kept: its logs are in ${hostPaths(name, 'a').logDir}.` : ''
    throw new Error(`${error instanceof Error ? error.message : String(error)}\n${lastWords(name)}${kept}`)
  } finally {
    if (!keep) await down(name)
    say(keep ? `kept: npm run lab -- down --name ${name}` : 'everything is removed')
  }
}

if (import.meta.main) runProgram(main, { say })
