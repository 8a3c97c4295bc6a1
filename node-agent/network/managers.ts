import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import type { NetworkManager } from '../../shared/hosts/network.ts'

/** What brings this host's network up at boot: our files have to be in its language, or they are ignored. */
export function findManager(root: string): NetworkManager {
  const has = (path: string): boolean => existsSync(join(root, path))
  const filled = (path: string, ending: RegExp): boolean => {
    try {
      return readdirSync(join(root, path)).some(name => ending.test(name))
    } catch {
      return false
    }
  }
  // netplan writes for one of the others, so it comes first.
  if (filled('etc/netplan', /\.ya?ml$/)) return 'netplan'
  const wanted = 'etc/systemd/system/multi-user.target.wants'
  if (has(`${wanted}/systemd-networkd.service`) || filled('etc/systemd/network', /\.network$/))
    return 'systemd-networkd'
  if (has(`${wanted}/NetworkManager.service`)) return 'NetworkManager'
  return definesInterfaces(root) ? 'ifupdown' : 'none'
}

function definesInterfaces(root: string): boolean {
  const path = join(root, 'etc/network/interfaces')
  return existsSync(path) && /^\s*(auto|iface|allow-hotplug|source)\b/m.test(readFileSync(path, 'utf8'))
}
