import { showFault } from '../../shared/hosts/fault.ts'
import { parsePortal, portalFault } from '../../shared/hosts/iscsi-portal.ts'
import { exec } from '../exec.ts'

/** The targets that an iSCSI portal offers (SendTargets, RFC 3720 appendix D). */
export interface DiscoveredTarget {
  portal: string
  name: string
}

/** `refused`: it is no portal, and nobody was asked. */
export type Discovery = { ok: true; targets: DiscoveredTarget[] } | { ok: false; refused: boolean; why: string }

const bounds = { limitMs: 15_000, whenKilled: 'leave' } as const

/**
 * By iscsiadm, which remembers what it finds and may log in later; where it can't (no kernel module, as in a container)
 * by libiscsi's iscsi-ls, which only looks.
 */
export async function discover(portal: string): Promise<Discovery> {
  const fault = portalFault(portal)
  if (fault !== null) return { ok: false, refused: true, why: showFault(fault) }
  const at = parsePortal(portal) ?? portal
  const kernel = await exec(
    ['iscsiadm', '--mode', 'discoverydb', '--type', 'sendtargets', '--portal', at, '--discover'],
    bounds,
  )
  if (kernel.ok) return { ok: true, targets: parseIscsiadm(kernel.stdout) }
  const library = await exec(['iscsi-ls', `iscsi://${at}`], bounds)
  if (library.ok) return { ok: true, targets: parseIscsiLs(library.stdout) }
  return { ok: false, refused: false, why: `the portal ${at} was not read: ${kernel.why}; ${library.why}` }
}

/** "10.0.0.9:3260,1 iqn.…" a line. */
export function parseIscsiadm(text: string): DiscoveredTarget[] {
  return text.split('\n').flatMap(line => {
    const match = /^(\S+?),\d+ (\S+)$/.exec(line.trim())
    return match === null ? [] : [{ portal: match[1]!, name: match[2]! }]
  })
}

/** "Target:iqn.… Portal:10.0.0.9:3260,1" a line. */
export function parseIscsiLs(text: string): DiscoveredTarget[] {
  return text.split('\n').flatMap(line => {
    const match = /^Target:(\S+) Portal:(\S+?),\d+$/.exec(line.trim())
    return match === null ? [] : [{ portal: match[2]!, name: match[1]! }]
  })
}
