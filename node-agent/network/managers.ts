import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { basename, join, matchesGlob } from 'node:path'
import type { NetworkManager } from '../../shared/hosts/network.ts'
import { ownFiles } from './boot-files.ts'

/** What brings this host's network up at boot: our files have to be in its language, or they are ignored. */
export function findManager(root: string): NetworkManager {
  const has = (path: string): boolean => existsSync(join(root, path))
  const filled = (path: string, ending: RegExp): boolean => namesIn(root, path).some(name => ending.test(name))
  // netplan writes for one of the others, so it comes first.
  if (filled('etc/netplan', /\.ya?ml$/)) return 'netplan'
  const wanted = 'etc/systemd/system/multi-user.target.wants'
  if (has(`${wanted}/systemd-networkd.service`) || filled('etc/systemd/network', /\.network$/))
    return 'systemd-networkd'
  if (has(`${wanted}/NetworkManager.service`)) return 'NetworkManager'
  return definesInterfaces(root) ? 'ifupdown' : 'none'
}

/** Which file of somebody else's brings a device up at boot; null: none does, as far as files tell. */
export function foreignBootFile(root: string, device: string): string | null {
  const name = device.replaceAll(/[.*+?^${}()|[\]\\]/g, '\\$&')
  return candidates(root).find(({ path, defines }) => defines(name).test(textOf(root, path)))?.path ?? null
}

/**
 * Which file of somebody else's would set a NIC up at boot against ours, so that it were no part of its vSwitch: one with
 * an address of its own (ifupdown), one that comes before ours (systemd-networkd takes the first that matches), and any
 * that names it (netplan puts all files together).
 */
export function foreignNicFile(
  root: string,
  { nic, manager }: { nic: string; manager: NetworkManager },
): string | null {
  const name = nic.replaceAll(/[.*+?^${}()|[\]\\]/g, '\\$&')
  const sets: { [manager in NetworkManager]?: (path: string, text: string) => boolean } = {
    ifupdown: (path, text) =>
      path.startsWith('/etc/network/') && new RegExp(`^\\s*iface\\s+${name}\\s+\\S+\\s+(?!manual\\b)`, 'm').test(text),
    'systemd-networkd': (path, text) =>
      path.startsWith('/etc/systemd/network/') &&
      path.endsWith('.network') &&
      basename(path) < `70-understudy-${nic}.network` &&
      matchesName(text, nic),
    netplan: (path, text) =>
      path.startsWith('/etc/netplan/') && new RegExp(`^\\s*["']?${name}["']?\\s*:`, 'm').test(text),
  }
  const found = candidates(root).find(({ path }) => sets[manager]?.(path, textOf(root, path)))
  return found?.path ?? null
}

/** systemd.network(5), "[Match] Name=": names and globs, in a list that "!" turns around. */
function matchesName(text: string, nic: string): boolean {
  const match = /^\[Match\]$([\s\S]*?)(?=^\[|(?![\s\S]))/m.exec(text)?.[1] ?? ''
  const words = [...match.matchAll(/^\s*Name\s*=\s*(.*)$/gm)].flatMap(one => (one[1] ?? '').trim().split(/\s+/))
  const turned = words[0]?.startsWith('!') === true
  const hit = words.some(word => matchesGlob(nic, word.replace(/^!/, '')))
  return words.length > 0 && hit !== turned
}

/** interfaces(5); systemd.netdev(5), systemd.network(5); netplan(5) in YAML or JSON. */
function candidates(root: string): { path: string; defines: (name: string) => RegExp }[] {
  const named = (folder: string, ending: RegExp, defines: (name: string) => RegExp) =>
    namesIn(root, folder)
      .filter(name => ending.test(name))
      .map(name => ({ path: `/${folder}/${name}`, defines }))
  const ifupdown = (name: string): RegExp => new RegExp(`^\\s*(auto|allow-\\S+|iface)\\s(.*\\s)?${name}(\\s|$)`, 'm')
  return [
    { path: '/etc/network/interfaces', defines: ifupdown },
    ...named('etc/network/interfaces.d', /^/, ifupdown),
    ...named('etc/systemd/network', /\.(netdev|network)$/, name => new RegExp(`^\\s*Name=(.*\\s)?${name}(\\s|$)`, 'm')),
    ...named('etc/netplan', /\.ya?ml$/, name => new RegExp(`^\\s*["']?${name}["']?\\s*:`, 'm')),
  ].filter(({ path }) => !ownFiles.some(pattern => pattern.test(path)))
}

function namesIn(root: string, folder: string): string[] {
  try {
    return readdirSync(join(root, folder)).sort()
  } catch {
    return [] // this host does not have such a folder
  }
}

function textOf(root: string, path: string): string {
  try {
    return readFileSync(join(root, path), 'utf8')
  } catch {
    return '' // gone meanwhile, or a folder
  }
}

function definesInterfaces(root: string): boolean {
  const path = join(root, 'etc/network/interfaces')
  return existsSync(path) && /^\s*(auto|iface|allow-hotplug|source)\b/m.test(readFileSync(path, 'utf8'))
}
