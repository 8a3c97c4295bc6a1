import { AF_UNIX, closeFd, KernelError, openSocket, SOCK_DGRAM, trySend, unixAddress } from '../kernel/libc.ts'

/** sd_notify(3): one datagram to the socket that systemd names, without a library and without a child. */
export interface Notifier {
  ready(status: string): void
  /** Shown by `systemctl status`; the same text once more costs nothing. */
  status(text: string): void
  stopping(): void
  /** Says that the loop still turns; systemd kills and restarts an agent that stops saying so. */
  alive(): void
  /** The program begins anew in this process, which takes a slow host longer than an agent that runs may be silent. */
  beginsAnew(): void
  /** How often `alive` is wanted; 0 = not at all. */
  aliveEveryMs: number
}

/** As long as a unit's first start may take (TimeoutStartSec=). */
const startLimitUs = 60_000_000

export function notifier(env: NodeJS.ProcessEnv = process.env): Notifier {
  const path = env.NOTIFY_SOCKET ?? ''
  const watchdogUs = Number(env.WATCHDOG_USEC ?? 0)
  let said = ''
  const ours = env.WATCHDOG_PID === undefined || Number(env.WATCHDOG_PID) === process.pid
  const send = (text: string): void => {
    if (path !== '') notify(path, text)
  }
  const isWatched = path !== '' && ours && watchdogUs > 0
  return {
    // Its own limit again, in case this process began anew.
    ready: status => send(`READY=1\nSTATUS=${status}${isWatched ? `\nWATCHDOG_USEC=${watchdogUs}` : ''}`),
    status: text => {
      if (text !== said) send(`STATUS=${text}`)
      said = text
    },
    stopping: () => send('STOPPING=1'),
    alive: () => send('WATCHDOG=1'),
    // Half of the limit, as sd_watchdog_enabled(3) advises.
    aliveEveryMs: isWatched ? watchdogUs / 2000 : 0,
    beginsAnew: () => {
      if (isWatched) send(`WATCHDOG_USEC=${startLimitUs}`)
    },
  }
}

/** A notification that can't be sent is no reason to stop: systemd then sees an agent that says nothing. */
function notify(path: string, text: string): void {
  let fd: number
  try {
    fd = openSocket({ domain: AF_UNIX, type: SOCK_DGRAM, protocol: 0 })
  } catch (error) {
    if (error instanceof KernelError) return
    throw error
  }
  trySend(fd, Buffer.from(text), unixAddress(path))
  closeFd(fd)
}
