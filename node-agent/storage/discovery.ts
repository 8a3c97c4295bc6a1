import { parsePortal, portalRule } from '../../shared/hosts/iscsi-portal.ts'
import { exec } from '../exec.ts'

/** The targets that an iSCSI portal offers (SendTargets, RFC 3720 appendix D). */
export interface DiscoveredTarget {
  portal: string
  name: string
}

export type Discovery = { ok: true; targets: DiscoveredTarget[] } | { ok: false; why: string }

const limitMs = 15_000

/**
 * By iscsiadm, which remembers what it finds and may log in later; where it can't (no kernel module, as in a container)
 * by libiscsi's iscsi-ls, which only looks.
 */
export async function discover(portal: string): Promise<Discovery> {
  const at = parsePortal(portal)
  if (at === null) return { ok: false, why: `portal is ${JSON.stringify(portal)} and ${portalRule}` }
  const kernel = await exec(
    ['iscsiadm', '--mode', 'discoverydb', '--type', 'sendtargets', '--portal', at, '--discover'],
    { limitMs },
  )
  if (kernel.ok) return { ok: true, targets: parseIscsiadm(kernel.stdout) }
  const library = await exec(['iscsi-ls', `iscsi://${at}`], { limitMs })
  if (library.ok) return { ok: true, targets: parseIscsiLs(library.stdout) }
  return { ok: false, why: `the portal ${at} was not read: ${kernel.why}; ${library.why}` }
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
