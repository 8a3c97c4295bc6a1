import type { PairSettings } from '../../../shared/contract/api/settings.ts'
import { timingOf, voteLimitMs } from '../../../shared/protocol/timing.ts'
import type { Deps } from '../../deps.ts'
import type { Measured } from '../../operations/plan.ts'

/** Of the pair's settings: what its hosts are asked to measure. */
export function measuredOf(
  { settings, organisation }: { settings: PairSettings; organisation: string },
  deps: Pick<Deps, 'witness'>,
): Measured {
  const at = witnessAt({ settings, organisation }, deps)
  const limitMs = witnessLimitMs(settings)
  return { vips: settings.vips.map(vip => vip.address), witness: at === null ? null : { ...at, limitMs } }
}

export const witnessLimitMs = ({ profile }: Pick<PairSettings, 'profile'>): number => voteLimitMs(timingOf(profile))

function witnessAt(
  { settings, organisation }: { settings: PairSettings; organisation: string },
  { witness: hosted }: Pick<Deps, 'witness'>,
): { url: string; fingerprint: string | null } | null {
  const { witness } = settings.arbitration
  switch (witness.kind) {
    case 'own':
      return { url: witness.url, fingerprint: witness.fingerprint }
    case 'hosted':
      return hosted === null
        ? null
        : { url: hostedWitnessUrl(hosted.url, organisation), fingerprint: hosted.fingerprint }
    default:
      return null
  }
}

/** The base address of an organisation's witnesses. */
export const hostedWitnessUrl = (url: string, organisation: string): string => `${url}/witness/v1/${organisation}`
