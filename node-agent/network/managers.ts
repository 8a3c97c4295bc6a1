import { existsSync, globSync, readdirSync, readFileSync } from 'node:fs'
import { basename, dirname, join, matchesGlob, relative, resolve } from 'node:path'
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
  return candidates(root).find(({ language, text }) => brings[language](text, escaped(device)))?.path ?? null
}

/**
 * Which file of somebody else's would set a NIC up at boot against ours, so that it were no part of its vSwitch: one with
 * an address of its own (ifupdown), one that comes before ours (systemd-networkd takes the first that matches), and any
 * that names or matches it (netplan puts all files together, and "10-netplan-all-en" comes before "10-netplan-eno1").
 */
export function foreignNicFile(
  root: string,
  { nic, manager }: { nic: string; manager: NetworkManager },
): string | null {
  const name = escaped(nic)
  const sets: { [language in Language]: (path: string, text: string) => boolean } = {
    ifupdown: (_path, text) =>
      new RegExp(`^[ \\t]*iface[ \\t]+${name}[ \\t]+\\S+[ \\t]+(?!manual\\b)\\S`, 'm').test(text),
    'systemd-networkd': (path, text) =>
      path.endsWith('.network') && basename(path) < `70-understudy-${nic}.network` && matchesNic(text, nic),
    netplan: (_path, text) => brings.netplan(text, name) || netplanNames(text).some(glob => matchesGlob(nic, glob)),
  }
  const found = candidates(root).find(({ path, language, text }) => language === manager && sets[language](path, text))
  return found?.path ?? null
}

/**
 * systemd.network(5), "[Match]": names and globs, in a list that "!" turns around; without a name the type of all that is
 * no made device. Whom a MAC address or a driver narrows it to, the file alone does not say.
 */
function matchesNic(text: string, nic: string): boolean {
  const match = /^[ \t]*\[Match\][ \t\r]*$([\s\S]*?)(?=^[ \t]*\[|(?![\s\S]))/m.exec(text)?.[1] ?? ''
  const lines = [...match.matchAll(/^[ \t]*(\w+)[ \t]*=(.*)$/gm)]
  const words = (wanted: string): string[] => lines.flatMap(([, key, value]) => (key === wanted ? wordsOf(value) : []))
  const names = words('Name')
  if (names.length > 0) return isInList(nic, names)
  const narrowed =
    lines.some(([, key]) => key !== 'Type' && key !== 'Kind') || words('Kind').some(kind => kind !== '!*')
  return !narrowed && isInList('ether', words('Type'))
}

function isInList(value: string, words: readonly string[]): boolean {
  const turned = words[0]?.startsWith('!') === true
  return words.length > 0 && words.some(word => matchesGlob(value, word.replace(/^!/, ''))) !== turned
}

/** netplan(5), "match: name" and "set-name": a name or a glob, or a list of them. */
const netplanNames = (text: string): string[] =>
  [
    ...text.matchAll(
      /(?:^|[{,\s])["']?(?:set-)?name["']?[ \t]*:[ \t]*(\[[^\]]*\]|(?:[ \t\r]*\n[ \t]*-[^\n]*)+|[^\n,}]*)/g,
    ),
  ].flatMap(one => wordsOf(one[1]?.replaceAll(/[[\],"']|(?<=\s)-(?=\s)/g, ' ')))

const wordsOf = (text = ''): string[] => text.split(/\s+/).filter(word => word !== '')
const escaped = (name: string): string => name.replaceAll(/[.*+?^${}()|[\]\\]/g, '\\$&')

type Language = 'ifupdown' | 'systemd-networkd' | 'netplan'

/** interfaces(5); systemd.netdev(5), systemd.network(5); netplan(5) in YAML or JSON. */
const brings: { [language in Language]: (text: string, name: string) => boolean } = {
  ifupdown: (text, name) => new RegExp(`^\\s*(auto|allow-\\S+|iface)\\s(.*\\s)?${name}(\\s|$)`, 'm').test(text),
  'systemd-networkd': (text, name) => new RegExp(`^[ \\t]*Name[ \\t]*=(.*\\s)?${name}(\\s|$)`, 'm').test(text),
  netplan: (text, name) => new RegExp(`(^|[{,])\\s*["']?${name}["']?\\s*:`, 'm').test(text),
}

/** Without comments and continued lines, as far as their language has them. */
const plain: { [language in Language]: (text: string) => string } = {
  ifupdown: text => text.replaceAll(/^\s*#.*$/gm, '').replaceAll(/\\\r?\n/g, ' '),
  'systemd-networkd': text => text,
  netplan: text => text.replaceAll(/(^|\s)#.*$/gm, '$1'),
}

function candidates(root: string): { path: string; language: Language; text: string }[] {
  const named = (folder: string, ending: RegExp): string[] =>
    namesIn(root, folder)
      .filter(name => ending.test(name))
      .map(name => `/${folder}/${name}`)
  const paths: { [language in Language]: string[] } = {
    ifupdown: [...new Set([...interfacesFiles(root), ...named('etc/network/interfaces.d', /^/)])],
    'systemd-networkd': named('etc/systemd/network', /\.(netdev|network)$/),
    netplan: named('etc/netplan', /\.ya?ml$/),
  }
  return (Object.keys(paths) as Language[])
    .flatMap(language => paths[language].map(path => ({ path, language, text: plain[language](textOf(root, path)) })))
    .filter(({ path }) => !ownFiles.some(pattern => pattern.test(path)))
}

/** With what it takes in, and that again (interfaces(5), "source" and "source-directory"). */
function interfacesFiles(root: string): string[] {
  const found = new Set(['/etc/network/interfaces'])
  // A set that grows while it is walked through is walked through to its end.
  for (const path of found) {
    for (const [, word, pattern = ''] of plain
      .ifupdown(textOf(root, path))
      .matchAll(/^[ \t]*(source|source-directory)[ \t]+(\S+)/gm)) {
      const files = join(resolve(dirname(path), pattern), word === 'source' ? '' : '*')
      for (const file of globSync(join(root, files))) found.add(`/${relative(root, file)}`)
    }
  }
  return [...found]
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
