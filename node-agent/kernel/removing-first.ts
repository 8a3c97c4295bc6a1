import { readFileSync, writeFileSync } from 'node:fs'

/**
 * IPv4 addresses of one segment on an interface: the first of them takes all later ones along when it is removed, unless the
 * interface puts the next one in its place (Documentation/networking/ip-sysctl.rst, "promote_secondaries"). While `work`
 * removes addresses of the interface they stay. Not for longer: where the host's own address is changed a virtual one would
 * come first then, and what this host sends by itself would be sent from that.
 *
 * Where it can't be set (no such interface, /proc/sys for reading alone) the work is done all the same.
 */
export function keepingOthers<T>(iface: string, work: () => T): T {
  const path = `/proc/sys/net/ipv4/conf/${iface}/promote_secondaries`
  const before = attempt(() => readFileSync(path, 'utf8').trim())
  if (before !== '0') return work()
  attempt(() => writeFileSync(path, '1'))
  try {
    return work()
  } finally {
    attempt(() => writeFileSync(path, before))
  }
}

function attempt<T>(work: () => T): T | null {
  try {
    return work()
  } catch {
    return null
  }
}
