import { type ChildProcess, spawn } from 'node:child_process'
import { cpus } from 'node:os'
import { setTimeout as sleep } from 'node:timers/promises'
import { HOSTS } from '../../infra/lab/addresses.ts'
import { down, up } from '../../infra/lab/lab.ts'
import { statuses, untilProtected } from '../../infra/lab/pair.ts'
import type { Profile } from '../../infra/lab/product.ts'
import { Trial } from '../../infra/lab/trial.ts'
import { decisionsOf } from './failover-timeline.ts'

/**
 * A pair left alone for some minutes with every core of the machine busy: how often did it take over, or drop its backup,
 * although nothing had failed?
 */
export interface LoadedCounts {
  minutes: number
  /** Busy processes, one for each core, beside the pair, its load and its observers. */
  hogs: number
  falseTakeovers: number
  /** Times the backup was made ineligible: the pair served unprotected for a moment. */
  shrinks: number
  longestGapMs: number
  lost: number
  doubleServing: number
}

const LAB = 'bench-loaded'
const WRITE_EVERY_MS = 100
const OBSERVE_EVERY_MS = 100

export async function measureLoaded(
  { profile, loadedMinutes }: { profile: Profile; loadedMinutes: number },
  say: (line: string) => void,
): Promise<LoadedCounts> {
  await up({ name: LAB, profile, say })
  let hogs: ChildProcess[] = []
  try {
    await untilProtected(LAB)
    const trial = await Trial.begin(LAB, {
      observe: { rhythmMs: OBSERVE_EVERY_MS },
      writer: { intervalMs: WRITE_EVERY_MS },
    })
    const before = { epoch: await epochOf(LAB), wallMs: Date.now() }
    hogs = cpus().map(() => spawn(process.execPath, ['-e', 'for(;;);'], { stdio: 'ignore' }))
    say(`${hogs.length} busy processes for ${loadedMinutes} min`)
    const { outage } = await trial.measure('under load', () => sleep(loadedMinutes * 60_000))
    endAll(hogs)
    await untilProtected(LAB)
    const { writes, judgement } = await trial.end()
    const shrinks = HOSTS.flatMap(host => decisionsOf(LAB, host)).filter(
      ({ wallMs, why }) => wallMs > before.wallMs && why.startsWith('committed shrink'),
    )
    return {
      minutes: loadedMinutes,
      hogs: hogs.length,
      falseTakeovers: (await epochOf(LAB)) - before.epoch,
      shrinks: shrinks.length,
      longestGapMs: outage.gapMs,
      lost: writes.a.lost.length + writes.b.lost.length,
      doubleServing: judgement.violations.length,
    }
  } finally {
    endAll(hogs)
    await down(LAB)
  }
}

const endAll = (processes: readonly ChildProcess[]): void => {
  for (const child of processes) child.kill('SIGKILL')
}

async function epochOf(lab: string): Promise<number> {
  const seen = await statuses(lab)
  return Math.max(...HOSTS.map(host => seen[host]?.epoch ?? 0))
}
