import { basename } from 'node:path'
import type { Sysfs } from './sysfs.ts'

/**
 * Block devices that this host gives to others, by kernel name, with how. Not every back end has its device for itself: the
 * NVMe target and LIO's files open it beside others, and nothing else tells of it.
 */
export function exportedDevices(sysfs: Sysfs): Map<string, string[]> {
  const found = new Map<string, string[]>()
  for (const { path, how } of [...scsiTargets(sysfs), ...nvmeTargets(sysfs)]) {
    if (path?.startsWith('/dev/') !== true) continue
    const name = basename(sysfs.target(path.slice(1)) ?? path)
    found.set(name, [...(found.get(name) ?? []), how])
  }
  return found
}

interface Exported {
  path: string | null | undefined
  how: string
}

/**
 * LIO (drivers/target/target_core_configfs.c). `udev_path` is what a tool has noted, `info` what a back end says of itself: one
 * of files names its file.
 */
function scsiTargets(sysfs: Sysfs): Exported[] {
  const core = 'sys/kernel/config/target/core'
  return sysfs.list(core).flatMap(adapter =>
    sysfs.list(`${core}/${adapter}`).flatMap(name => {
      const place = `${core}/${adapter}/${name}`
      if (sysfs.text(`${place}/enable`) !== '1') return []
      const file = /File: (\S+)/.exec(sysfs.text(`${place}/info`) ?? '')?.[1]
      return [{ path: file ?? sysfs.text(`${place}/udev_path`), how: `exported by LIO as ${adapter}/${name}` }]
    }),
  )
}

/** drivers/nvme/target/configfs.c */
function nvmeTargets(sysfs: Sysfs): Exported[] {
  const subsystems = 'sys/kernel/config/nvmet/subsystems'
  return sysfs.list(subsystems).flatMap(subsystem =>
    sysfs.list(`${subsystems}/${subsystem}/namespaces`).flatMap(id => {
      const place = `${subsystems}/${subsystem}/namespaces/${id}`
      if (sysfs.text(`${place}/enable`) !== '1') return []
      const how = `exported over NVMe as namespace ${id} of ${subsystem}`
      return [{ path: sysfs.text(`${place}/device_path`), how }]
    }),
  )
}
