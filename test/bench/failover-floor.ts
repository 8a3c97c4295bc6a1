import { removeWhenInterrupted } from '../../infra/lab/program.ts'
import { twoClusters } from '../integration/support/clusters.ts'
import { type Summary, summary } from './statistics.ts'

/** Ports of the two clusters on loopback; the lab's are in namespaces of their own. */
const PORT_A = 55_470

/**
 * The floor of every takeover: a standby in step is promoted until it takes a write. Moving an address costs less than
 * a millisecond beside it (test/bench/gate.ts) and is not separable on one host.
 */
export async function measureFloor(runs: number, say: (line: string) => void): Promise<Summary> {
  const { a, b, cleanUp } = await twoClusters({ portA: PORT_A })
  const cleaned = removeWhenInterrupted(cleanUp)
  try {
    let [primary, standby] = [a, b]
    let epoch = 1
    await primary.create()
    const first = await primary.must({ op: 'promote', epoch, syncNames: 'empty' })
    await standby.must({ op: 'rejoin', gen: 1, epoch, timeline: first.view.end.timeline, clone: 'ifNeeded' })
    const values: number[] = []
    for (let run = 0; run < runs; run += 1) {
      await primary.must({ op: 'kill' })
      epoch += 1
      const began = performance.now()
      const { view } = await standby.must({ op: 'promote', epoch, syncNames: 'empty' })
      values.push(performance.now() - began)
      ;[primary, standby] = [standby, primary]
      await standby.must({ op: 'rejoin', gen: 1, epoch, timeline: view.end.timeline, clone: 'ifNeeded' })
    }
    say(`floor, promote alone: ${values.map(value => value.toFixed(0)).join(' ')} ms`)
    return summary(values)
  } finally {
    await cleanUp()
    cleaned()
  }
}
