import { existsSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join, relative } from 'node:path'

/**
 * A tree of sysfs made from text, for adapters that no test machine has. One line a file ("path = content") or a link
 * ("path -> path"), all from the root. The layouts below are those that the kernel's drivers make: attribute names from
 * Documentation/ABI, device paths as `ls -l /sys/class/scsi_host` shows them for the drivers named.
 */
export function fakeSysfs(text: string): { root: string; remove: () => void } {
  // In memory, as sysfs is: a disk that is busy would be measured with it.
  const root = mkdtempSync(join(existsSync('/dev/shm') ? '/dev/shm' : tmpdir(), 'understudy-sysfs-'))
  for (const line of text.split('\n').map(one => one.trim())) {
    if (line === '' || line.startsWith('#')) continue
    const link = /^(\S+) -> (\S+)$/.exec(line)
    const file = /^(\S+) =(?: (.*))?$/.exec(line)
    const path = join(root, link?.[1] ?? file?.[1] ?? '')
    if (link === null && file === null) throw new Error(`neither a file nor a link: ${line}`)
    mkdirSync(dirname(path), { recursive: true })
    if (file !== null) writeFileSync(path, `${file[2] ?? ''}\n`)
    else {
      const target = join(root, link![2]!)
      mkdirSync(target, { recursive: true })
      symlinkSync(relative(dirname(path), target), path)
    }
  }
  return { root, remove: () => rmSync(root, { recursive: true, force: true }) }
}

/** Intel AHCI with one disk (drivers/ata/libahci.c), root file system on its first partition, swap on the second. */
export const ahci = `
  sys/class/scsi_host/host0 -> sys/devices/pci0000:00/0000:00:1f.2/ata1/host0/scsi_host/host0
  sys/devices/pci0000:00/0000:00:1f.2/ata1/host0/scsi_host/host0/proc_name = ahci
  sys/devices/pci0000:00/0000:00:1f.2/ata1/host0/scsi_host/host0/state = running
  sys/devices/pci0000:00/0000:00:1f.2/ata1/host0/scsi_host/host0/scan =
  sys/devices/pci0000:00/0000:00:1f.2/ata1/host0/scsi_host/host0/device -> sys/devices/pci0000:00/0000:00:1f.2/ata1/host0
  sys/devices/pci0000:00/0000:00:1f.2/vendor = 0x8086
  sys/devices/pci0000:00/0000:00:1f.2/device = 0x2922
  sys/class/ata_link/link1/sata_spd = 6.0 Gbps
  sys/class/scsi_host/host1 -> sys/devices/pci0000:00/0000:00:1f.2/ata2/host1/scsi_host/host1
  sys/devices/pci0000:00/0000:00:1f.2/ata2/host1/scsi_host/host1/proc_name = ahci
  sys/devices/pci0000:00/0000:00:1f.2/ata2/host1/scsi_host/host1/scan =
  sys/class/ata_link/link2/sata_spd = <unknown>
  sys/block/sda -> sys/devices/pci0000:00/0000:00:1f.2/ata1/host0/target0:0:0/0:0:0:0/block/sda
  sys/devices/pci0000:00/0000:00:1f.2/ata1/host0/target0:0:0/0:0:0:0/block/sda/size = 1000215216
  sys/devices/pci0000:00/0000:00:1f.2/ata1/host0/target0:0:0/0:0:0:0/block/sda/device -> sys/devices/pci0000:00/0000:00:1f.2/ata1/host0/target0:0:0/0:0:0:0
  sys/devices/pci0000:00/0000:00:1f.2/ata1/host0/target0:0:0/0:0:0:0/vendor = ATA
  sys/devices/pci0000:00/0000:00:1f.2/ata1/host0/target0:0:0/0:0:0:0/model = INTEL SSDSC2KB48
  sys/devices/pci0000:00/0000:00:1f.2/ata1/host0/target0:0:0/0:0:0:0/state = running
  sys/devices/pci0000:00/0000:00:1f.2/ata1/host0/target0:0:0/0:0:0:0/rescan =
  sys/devices/pci0000:00/0000:00:1f.2/ata1/host0/target0:0:0/0:0:0:0/wwid = naa.55cd2e41516e1a2b
  sys/devices/pci0000:00/0000:00:1f.2/ata1/host0/target0:0:0/0:0:0:0/block/sda/sda1/partition = 1
  sys/devices/pci0000:00/0000:00:1f.2/ata1/host0/target0:0:0/0:0:0:0/block/sda/sda2/partition = 2
  sys/class/block/sda1/dev = 8:1
  sys/class/block/sda2/dev = 8:2
`

/** QLogic QLE2742 (drivers/scsi/qla2xxx): one port, a target that answers and one that is blocked, two LUN paths. */
export const qla2xxx = `
  sys/class/scsi_host/host3 -> sys/devices/pci0000:3a/0000:3b:00.0/host3/scsi_host/host3
  sys/devices/pci0000:3a/0000:3b:00.0/host3/scsi_host/host3/proc_name = qla2xxx
  sys/devices/pci0000:3a/0000:3b:00.0/host3/scsi_host/host3/model_name = QLE2742
  sys/devices/pci0000:3a/0000:3b:00.0/host3/scsi_host/host3/state = running
  sys/devices/pci0000:3a/0000:3b:00.0/host3/scsi_host/host3/scan =
  sys/class/fc_host/host3/port_name = 0x21000024ff7e1a2b
  sys/class/fc_host/host3/node_name = 0x20000024ff7e1a2b
  sys/class/fc_host/host3/port_state = Online
  sys/class/fc_host/host3/speed = 16 Gbit
  sys/class/fc_host/host3/issue_lip =
  sys/class/fc_remote_ports/rport-3:0-1/port_name = 0x500a098081234567
  sys/class/fc_remote_ports/rport-3:0-1/port_state = Online
  sys/class/fc_remote_ports/rport-3:0-1/roles = FCP Target
  sys/class/fc_remote_ports/rport-3:0-2/port_name = 0x21000024ff000000
  sys/class/fc_remote_ports/rport-3:0-2/port_state = Online
  sys/class/fc_remote_ports/rport-3:0-2/roles = FCP Initiator
  sys/class/fc_remote_ports/rport-3:0-3/port_name = 0x500a098091234567
  sys/class/fc_remote_ports/rport-3:0-3/port_state = Blocked
  sys/class/fc_remote_ports/rport-3:0-3/roles = FCP Target
  ${fcPath({ name: 'sdb', address: '3:0:0:1', state: 'running' })}
  ${fcPath({ name: 'sdc', address: '3:0:1:1', state: 'transport-offline' })}
  sys/block/dm-0/dm/name = mpatha
  sys/block/dm-0/dm/uuid = mpath-3600a098038304437415d4b6a59684b35
  sys/block/dm-0/slaves/sdb/x = 1
  sys/block/dm-0/slaves/sdc/x = 1
  sys/block/dm-1/slaves/dm-0/x = 1
  sys/block/dm-1/dm/name = vg0-data
  sys/block/dm-1/dm/uuid = LVM-abc
  sys/class/block/dm-1/dev = 254:1
`

function fcPath({ name, address, state }: { name: string; address: string; state: string }): string {
  const target = `target${address.split(':').slice(0, 3).join(':')}`
  const device = `sys/devices/pci0000:3a/0000:3b:00.0/host3/rport-3:0-1/${target}/${address}`
  return `
  sys/block/${name} -> ${device}/block/${name}
  ${device}/block/${name}/size = 209715200
  ${device}/block/${name}/device -> ${device}
  ${device}/vendor = NETAPP
  ${device}/model = LUN C-Mode
  ${device}/state = ${state}
  ${device}/rescan =
  ${device}/wwid = naa.600a098038304437415d4b6a59684b35`
}

/** Software iSCSI (drivers/scsi/iscsi_tcp.c): one session; the host's own initiatorname reads "(null)". */
export const iscsiTcp = `
  sys/class/scsi_host/host5 -> sys/devices/platform/host5/scsi_host/host5
  sys/devices/platform/host5/scsi_host/host5/proc_name = iscsi_tcp
  sys/devices/platform/host5/scsi_host/host5/state = running
  sys/class/iscsi_host/host5/initiatorname = (null)
  sys/class/iscsi_connection/connection1:0/persistent_address = fd00::9
  sys/class/iscsi_connection/connection1:0/persistent_port = 3260
  sys/class/iscsi_session/session1 -> sys/devices/platform/host5/session1/iscsi_session/session1
  sys/devices/platform/host5/session1/iscsi_session/session1/targetname = iqn.2026-01.example.store:data
  sys/devices/platform/host5/session1/iscsi_session/session1/state = LOGGED_IN
  sys/devices/platform/host5/session1/iscsi_session/session1/initiatorname = iqn.2026-01.example.host:a
  sys/block/sdd -> sys/devices/platform/host5/session1/target5:0:0/5:0:0:1/block/sdd
  sys/devices/platform/host5/session1/target5:0:0/5:0:0:1/block/sdd/size = 2097152
  sys/devices/platform/host5/session1/target5:0:0/5:0:0:1/block/sdd/device -> sys/devices/platform/host5/session1/target5:0:0/5:0:0:1
  sys/devices/platform/host5/session1/target5:0:0/5:0:0:1/vendor = IET
  sys/devices/platform/host5/session1/target5:0:0/5:0:0:1/model = VIRTUAL-DISK
  sys/devices/platform/host5/session1/target5:0:0/5:0:0:1/state = running
  sys/devices/platform/host5/session1/target5:0:0/5:0:0:1/wwid = t10.IET     00010001
  etc/iscsi/initiatorname.iscsi = InitiatorName=iqn.2026-01.example.host:a
`

/** mpt3sas with two phys up and one end device (drivers/scsi/mpt3sas, scsi_transport_sas). */
export const sas = `
  sys/class/scsi_host/host4 -> sys/devices/pci0000:17/0000:18:00.0/host4/scsi_host/host4
  sys/devices/pci0000:17/0000:18:00.0/host4/scsi_host/host4/proc_name = mpt3sas
  sys/devices/pci0000:17/0000:18:00.0/host4/scsi_host/host4/board_name = SAS9300-8i
  sys/devices/pci0000:17/0000:18:00.0/host4/scsi_host/host4/state = running
  sys/class/sas_host/host4/x = 1
  sys/class/sas_phy/phy-4:0/sas_address = 0x500605b00a1b2c3d
  sys/class/sas_phy/phy-4:0/negotiated_linkrate = 12.0 Gbit
  sys/class/sas_phy/phy-4:1/sas_address = 0x500605b00a1b2c3d
  sys/class/sas_phy/phy-4:1/negotiated_linkrate = 12.0 Gbit
  sys/class/sas_phy/phy-4:2/sas_address = 0x500605b00a1b2c3d
  sys/class/sas_phy/phy-4:2/negotiated_linkrate = Unknown
  sys/class/sas_device/end_device-4:0/sas_address = 0x5000c500aabbccdd
`

/** bnx2fc (FCoE), and NVMe: one on PCI Express, one over TCP (drivers/nvme/host). */
export const fcoeAndNvme = `
  sys/class/scsi_host/host6 -> sys/devices/pci0000:5d/0000:5e:00.0/host6/scsi_host/host6
  sys/devices/pci0000:5d/0000:5e:00.0/host6/scsi_host/host6/proc_name = bnx2fc
  sys/devices/pci0000:5d/0000:5e:00.0/host6/scsi_host/host6/state = running
  sys/class/fc_host/host6/port_name = 0x20000e1e00112233
  sys/class/fc_host/host6/port_state = Linkdown
  sys/class/fc_host/host6/speed = unknown
  sys/class/nvme/nvme0/transport = pcie
  sys/class/nvme/nvme0/model = SAMSUNG MZVL2512HCJQ
  sys/class/nvme/nvme0/subsysnqn = nqn.1994-11.com.samsung:nvme:980M.2:S64ENX0T
  sys/class/nvme/nvme0/state = live
  sys/class/nvme/nvme0/device/current_link_speed = 16.0 GT/s PCIe
  sys/class/nvme/nvme1/transport = tcp
  sys/class/nvme/nvme1/model = Linux
  sys/class/nvme/nvme1/subsysnqn = nqn.2026-01.example.store:fast
  sys/class/nvme/nvme1/hostnqn = nqn.2014-08.org.nvmexpress:uuid:1b4e28ba-2fa1-11d2-883f-0016d3cca427
  sys/class/nvme/nvme1/state = connecting
  sys/block/nvme0n1 -> sys/devices/pci0000:00/0000:01:00.0/nvme/nvme0/nvme0n1
  sys/devices/pci0000:00/0000:01:00.0/nvme/nvme0/nvme0n1/size = 1000215216
  sys/devices/pci0000:00/0000:01:00.0/nvme/nvme0/nvme0n1/wwid = eui.0025385b21404f10
  sys/devices/pci0000:00/0000:01:00.0/nvme/nvme0/nvme0n1/device -> sys/devices/pci0000:00/0000:01:00.0/nvme/nvme0
  sys/devices/pci0000:00/0000:01:00.0/nvme/nvme0/state = live
  sys/devices/pci0000:00/0000:01:00.0/nvme/nvme0/model = SAMSUNG MZVL2512HCJQ
`

/** Two controllers over TCP to one subsystem, whose namespaces the kernel puts together (drivers/nvme/host/multipath.c). */
export const nvmeMultipath = `
  sys/class/nvme/nvme2/transport = tcp
  sys/class/nvme/nvme2/subsysnqn = nqn.2026-01.example.store:shared
  sys/class/nvme/nvme2/state = live
  sys/class/nvme/nvme2/nvme2c2n1/ana_state = optimized
  sys/class/nvme/nvme3/transport = tcp
  sys/class/nvme/nvme3/subsysnqn = nqn.2026-01.example.store:shared
  sys/class/nvme/nvme3/state = live
  sys/class/nvme/nvme3/nvme2c3n1/ana_state = inaccessible
  sys/class/nvme-subsystem/nvme-subsys2 -> sys/devices/virtual/nvme-subsystem/nvme-subsys2
  sys/devices/virtual/nvme-subsystem/nvme-subsys2/iopolicy = numa
  sys/devices/virtual/nvme-subsystem/nvme-subsys2/model = Linux
  sys/devices/virtual/nvme-subsystem/nvme-subsys2/nvme2 -> sys/class/nvme/nvme2
  sys/devices/virtual/nvme-subsystem/nvme-subsys2/nvme3 -> sys/class/nvme/nvme3
  sys/block/nvme2n1 -> sys/devices/virtual/nvme-subsystem/nvme-subsys2/nvme2n1
  sys/devices/virtual/nvme-subsystem/nvme-subsys2/nvme2n1/size = 131072
  sys/devices/virtual/nvme-subsystem/nvme-subsys2/nvme2n1/nsid = 7
  sys/devices/virtual/nvme-subsystem/nvme-subsys2/nvme2n1/wwid = uuid.6c1e4f0a-7d7a-4f5b-9d62-0a4f3b0f4f11
  sys/devices/virtual/nvme-subsystem/nvme-subsys2/nvme2n1/device -> sys/devices/virtual/nvme-subsystem/nvme-subsys2
`

export const mounts = `
  proc/self/mountinfo = 22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
  proc/swaps = Filename Type Size Used Priority
`
