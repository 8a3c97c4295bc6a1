import type { StoragePath } from '../../shared/hosts/storage.ts'
import type { Sysfs } from './sysfs.ts'

/**
 * The paths to an NVMe namespace that the kernel puts together itself (drivers/nvme/host/multipath.c). A subsystem with
 * several controllers has a disk that belongs to none of them, and one that nobody opens for each ("nvme0c2n1"), below its
 * controller.
 */

/** Where a disk of this place in sysfs is one of a whole subsystem. */
export const subsystemOf = (real: string): string | null =>
  /\/nvme-subsystem\/(nvme-subsys\d+)\//.exec(real)?.[1] ?? null

/** "numa", "round-robin", "queue-depth". */
export const subsystemPolicy = (sysfs: Sysfs, subsystem: string): string =>
  sysfs.text(`sys/class/nvme-subsystem/${subsystem}/iopolicy`) ?? 'unknown'

/** Asymmetric namespace access (NVM Express base specification 2.0, 8.1): these take commands. */
const accessible = new Set(['optimized', 'non-optimized'])

export function namespacePaths(sysfs: Sysfs, { name, subsystem }: { name: string; subsystem: string }): StoragePath[] {
  const [, instance, namespace] = /^nvme(\d+)n(\d+)$/.exec(name) ?? []
  const controllers = sysfs.list(`sys/class/nvme-subsystem/${subsystem}`).filter(one => /^nvme\d+$/.test(one))
  return controllers.flatMap(adapter => {
    const controller = `sys/class/nvme/${adapter}`
    const path = `nvme${instance}c${adapter.slice('nvme'.length)}n${namespace}`
    if (!sysfs.has(`${controller}/${path}`)) return []
    const state = sysfs.text(`${controller}/state`) ?? 'unknown'
    const access = sysfs.text(`${controller}/${path}/ana_state`)
    const shown = access === null ? state : `${state}, ${access}`
    return [
      {
        name: path,
        adapter,
        address: null,
        state: shown,
        up: state === 'live' && (access === null || accessible.has(access)),
      },
    ]
  })
}
