import { AF_NETLINK, bindSocket, closeFd, EAGAIN, openSocket, ReadySet, SOCK_RAW, tryReceive } from './libc.ts'
import { NETLINK_ROUTE, NetlinkSocket } from './netlink.ts'
import { routeGroups } from './route-events.ts'

const NETLINK_KOBJECT_UEVENT = 15
/** The kernel's own; group 2 is what udevd makes of them (systemd, sd-device/device-monitor.c). */
const uevents = 1
/** An event has at most 2048 bytes of variables (linux/kobject.h, UEVENT_BUFFER_SIZE) behind its path. */
const eventBytes = 8192
/** More than the default receive buffer holds; the rest is for the next time. */
const eventsMax = 1000

/**
 * Whether anything of links, addresses and routes, or of storage adapters and their devices, has changed. What exactly is
 * left to whoever looks. In calm it costs one call to the kernel.
 */
export class HostEvents {
  readonly #routes = new NetlinkSocket(NETLINK_ROUTE, { groups: routeGroups })
  readonly #devices: number
  readonly #ready: ReadySet
  readonly #event = Buffer.alloc(eventBytes)

  constructor() {
    this.#devices = openSocket({ domain: AF_NETLINK, type: SOCK_RAW, protocol: NETLINK_KOBJECT_UEVENT })
    const address = Buffer.alloc(12)
    address.writeUInt16LE(AF_NETLINK)
    address.writeUInt32LE(uevents, 8)
    bindSocket(this.#devices, address)
    this.#ready = new ReadySet([this.#routes.fd, this.#devices])
  }

  /** Since the last time; never waits. What overran a buffer is a change too. */
  changed(): boolean {
    if (!this.#ready.any()) return false
    let any = false
    const { overrun } = this.#routes.drain(() => {
      any = true
    })
    return this.#drainDevices() || overrun || any
  }

  close(): void {
    this.#routes.close()
    closeFd(this.#devices)
  }

  #drainDevices(): boolean {
    let any = false
    for (let count = 0; count < eventsMax; count += 1) {
      const length = tryReceive(this.#devices, this.#event)
      if (length === -EAGAIN) break
      // What was lost, or is cut short, is not known.
      any ||= length < 0 || length > eventBytes || isOfStorage(this.#event.toString('latin1', 0, length))
    }
    return any
  }
}

const adapterClasses = new Set([
  'scsi',
  'scsi_host',
  'fc_host',
  'fc_remote_ports',
  'iscsi_host',
  'iscsi_session',
  'iscsi_connection',
  'sas_host',
  'sas_device',
  'nvme',
  'nvme-subsystem',
])
/** Of disks, and of what is made of them: loop devices and memory come and go on hosts that run containers. */
const devices = /^(sd|sr|st|nvme|vd|xvd|dm-|md|bcache)/

/** "add@/devices/…" and then variables, each with a zero behind it (kernel, lib/kobject_uevent.c). */
export function isOfStorage(event: string): boolean {
  const value = (name: string): string | undefined =>
    event
      .split('\0')
      .find(part => part.startsWith(`${name}=`))
      ?.slice(name.length + 1)
  const subsystem = value('SUBSYSTEM') ?? ''
  return adapterClasses.has(subsystem) || (subsystem === 'block' && devices.test(value('DEVNAME') ?? ''))
}
