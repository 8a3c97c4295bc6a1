import { openSync, readSync } from 'node:fs'

/** As long as any kernel writes it: some lines of Ip, Icmp, Tcp and Udp. */
const fileBytesMax = 16 * 1024
const wantedColumns = ['PassiveOpens', 'CurrEstab'] as const

/**
 * Changes whenever a TCP connection to this host was accepted or ended: the kernel's own counts of this network namespace,
 * both IP versions together (proc_pid_net(5), RFC 4022). To list the connections the kernel walks its whole table of them,
 * which takes a hundred times as long as this.
 */
export class ConnectionCount {
  #fd: number | null = null
  readonly #buffer = Buffer.alloc(fileBytesMax)

  /** null where the kernel does not tell. */
  read(): string | null {
    try {
      this.#fd ??= openSync('/proc/thread-self/net/snmp', 'r')
      return countsOf(this.#buffer.toString('latin1', 0, readSync(this.#fd, this.#buffer, 0, fileBytesMax, 0)))
    } catch {
      return null
    }
  }
}

/** Of the text of /proc/net/snmp: a line of names, then one of values; null where one of ours is not among them. */
export function countsOf(text: string): string | null {
  const [names, values] = text.split('\n').filter(line => line.startsWith('Tcp:'))
  if (names === undefined || values === undefined) return null
  const columns = names.split(' ')
  const fields = values.split(' ')
  const counts = wantedColumns.map(name => fields[columns.indexOf(name)])
  return counts.includes(undefined) ? null : counts.join(' ')
}
