import { writeFileSync } from 'node:fs'

/**
 * IPv4 addresses of one segment on an interface: the first of them takes all later ones along when it is removed, unless the
 * interface is told to put the next one in its place (Documentation/networking/ip-sysctl.rst, "promote_secondaries"). systemd
 * does so for all interfaces where its distribution lets it; an interface that is made anew has the default again.
 *
 * Where it can't be written (no such interface, /proc/sys for reading alone) all is as before.
 */
export function promoteSecondaries(iface: string): void {
  try {
    writeFileSync(`/proc/sys/net/ipv4/conf/${iface}/promote_secondaries`, '1')
  } catch {
    // The caller does what it was to do all the same.
  }
}
