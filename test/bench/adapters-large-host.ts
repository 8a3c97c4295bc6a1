/**
 * A host with more interfaces and disks than anybody has, for `bench:adapters`: its disks are a tree of files, which sysfs
 * is too. As a program it makes that tree where it runs and prints its root.
 */
import { fakeSysfs } from '../unit/hosts/fake-sysfs.ts'

export const INTERFACES = 200
export const DEVICES = 2000
export const ADAPTERS = 32

export function largeHost(): string {
  const lines: string[] = []
  for (let n = 0; n < ADAPTERS; n += 1) {
    const host = `sys/devices/pci0000:00/0000:00:${n.toString(16).padStart(2, '0')}.0/host${n}`
    lines.push(
      `sys/class/scsi_host/host${n} -> ${host}/scsi_host/host${n}`,
      `${host}/scsi_host/host${n}/proc_name = qla2xxx`,
      `${host}/scsi_host/host${n}/state = running`,
      `${host}/scsi_host/host${n}/scan =`,
      `sys/class/fc_host/host${n}/port_name = 0x21000024ff7e${n.toString(16).padStart(4, '0')}`,
      `sys/class/fc_host/host${n}/port_state = Online`,
    )
  }
  for (let i = 0; i < DEVICES; i += 1) {
    const n = i % ADAPTERS
    const address = `${n}:0:0:${Math.floor(i / ADAPTERS)}`
    const device = `sys/devices/pci0000:00/0000:00:${n.toString(16).padStart(2, '0')}.0/host${n}/target${n}:0:0/${address}`
    lines.push(
      `sys/block/sd${i} -> ${device}/block/sd${i}`,
      `${device}/block/sd${i}/size = 209715200`,
      `${device}/block/sd${i}/device -> ${device}`,
      `${device}/vendor = NETAPP`,
      `${device}/model = LUN C-Mode`,
      `${device}/state = running`,
      `${device}/rescan =`,
      `${device}/wwid = naa.600a09803830443741${i.toString(16).padStart(14, '0')}`,
    )
  }
  return lines.join('\n')
}

/** Pairs of veth: each end is an interface. For `ip -batch`. */
export const interfacesBatch = (): string[] =>
  Array.from({ length: INTERFACES / 2 }, (_, i) => `link add v${i}a type veth peer name v${i}b`)

if (import.meta.main) process.stdout.write(`${fakeSysfs(largeHost()).root}\n`)
