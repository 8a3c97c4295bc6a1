import { Refusal } from '../../http/problem.ts'
import { leadingReport } from './pair-view.ts'
import type { PairRows } from './read-pairs.ts'

/** What the plans of operations need of a pair's hosts. */
export const pairingOf = ({ pair, hosts }: PairRows) => ({
  hosts: {
    a: { id: hosts.a.host.id, sealingKey: hosts.a.host.sealingKey, addresses: pair.settings.hosts.a.addresses },
    b: { id: hosts.b.host.id, sealingKey: hosts.b.host.sealingKey, addresses: pair.settings.hosts.b.addresses },
  },
  sync: pair.settings.syncPartition,
})

/**
 * Who is primary, at which gen and epoch, as lately reported: every command that touches the role names them.
 * @throws Refusal when nobody has told, or the caller saw another epoch
 */
export function presentOf(
  rows: PairRows,
  { now, expectedEpoch }: { now: Date; expectedEpoch: number | undefined },
): { primary: 'a' | 'b'; gen: number; epoch: number } {
  const report = leadingReport(rows, now)
  if (report === null || report.primary === null)
    throw new Refusal('operation_refused', 'who is primary is not known: neither host was heard within 30 s', {
      obstacles: ['neither host was heard within 30 s'],
    })
  const { primary, gen, epoch } = report
  if (expectedEpoch !== undefined && expectedEpoch !== epoch)
    throw new Refusal(
      'epoch_changed',
      `the pair is at epoch ${epoch}, and the caller saw ${expectedEpoch}: look at it again`,
    )
  return { primary, gen, epoch }
}
