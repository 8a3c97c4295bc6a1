import { dirname } from 'node:path'
import { parsePortal } from '../../shared/hosts/iscsi-portal.ts'
import {
  type AdapterKind,
  type StorageAdapter,
  type StorageTarget,
  softwareIscsiName,
} from '../../shared/hosts/storage.ts'
import type { Sysfs } from './sysfs.ts'

/**
 * The host's storage adapters, from sysfs: each SCSI host, with what its transport class adds, and each NVMe controller.
 * Attributes are those of Documentation/ABI/{stable,testing}/sysfs-* and of the drivers named beside them.
 */

/** Adapters are dozens; a thousand SCSI hosts is a mistake, and a report has to stay small. */
const adaptersMax = 1024

/** Drivers that speak Fibre Channel over Ethernet; their hosts are fc_hosts all the same. */
const fcoeDrivers = new Set(['fcoe', 'bnx2fc', 'qedf', 'fnic'])
const softwareIscsiDriver = 'iscsi_tcp'

export function listAdapters(sysfs: Sysfs, options: { initiatorName: string | null }): StorageAdapter[] {
  const hosts = sysfs.list('sys/class/scsi_host').slice(0, adaptersMax)
  const sessions = listSessions(sysfs)
  const scsi = hosts.map(host => scsiAdapter(sysfs, { host, sessions })).filter(adapter => adapter !== null)
  const nvme = sysfs
    .list('sys/class/nvme')
    .slice(0, adaptersMax)
    .map(name => nvmeAdapter(sysfs, name))
  return [...scsi, ...softwareIscsi(sysfs, { hosts, sessions, initiatorName: options.initiatorName }), ...nvme]
}

function scsiAdapter(
  sysfs: Sysfs,
  { host, sessions }: { host: string; sessions: readonly IscsiSession[] },
): StorageAdapter | null {
  const base = `sys/class/scsi_host/${host}`
  const driver = driverOf(sysfs, host)
  if (driver === softwareIscsiDriver) return null
  const common = { name: host, driver, model: modelOf(sysfs, host), hosts: [host] }
  const state = sysfs.text(`${base}/state`) ?? 'unknown'
  if (sysfs.has(`sys/class/fc_host/${host}`)) {
    const fc = `sys/class/fc_host/${host}`
    return {
      ...common,
      kind: fcoeDrivers.has(driver) ? 'fcoe' : 'fc',
      identifier: wwn(sysfs.text(`${fc}/port_name`)),
      state: sysfs.text(`${fc}/port_state`) ?? state,
      speed: known(sysfs.text(`${fc}/speed`)),
      targets: fcTargets(sysfs, host),
    }
  }
  if (sysfs.has(`sys/class/sas_host/${host}`)) return { ...common, kind: 'sas', state, ...sasLink(sysfs, host) }
  if (sysfs.has(`sys/class/iscsi_host/${host}`)) {
    return {
      ...common,
      kind: 'iscsi',
      identifier: sysfs.text(`sys/class/iscsi_host/${host}/initiatorname`),
      state: sysfs.text(`sys/class/iscsi_host/${host}/port_state`) ?? state,
      speed: known(sysfs.text(`sys/class/iscsi_host/${host}/port_speed`)),
      targets: targetsOf(sessions, host),
    }
  }
  return { ...common, kind: 'scsi', identifier: null, state, speed: ataSpeed(sysfs, host), targets: [] }
}

/** One adapter, whatever number of sessions: its identifier is the host's initiator name, its hosts are the sessions'. */
function softwareIscsi(
  sysfs: Sysfs,
  parts: { hosts: readonly string[]; sessions: readonly IscsiSession[]; initiatorName: string | null },
): StorageAdapter[] {
  const hosts = parts.hosts.filter(host => driverOf(sysfs, host) === softwareIscsiDriver)
  if (hosts.length === 0 && parts.initiatorName === null) return []
  const targets = hosts.flatMap(host => targetsOf(parts.sessions, host))
  return [
    {
      name: softwareIscsiName,
      kind: 'iscsi',
      driver: softwareIscsiDriver,
      model: 'software initiator',
      identifier: parts.initiatorName,
      state: targets.length === 0 ? 'no session' : `${targets.length} session${targets.length === 1 ? '' : 's'}`,
      speed: null,
      targets,
      hosts,
    },
  ]
}

export interface IscsiSession {
  id: string
  host: string
  target: string
  /** "10.0.0.9:3260", as open-iscsi knows it (its own `session_info`); null where the kernel does not say. */
  portal: string | null
  /** open-iscsi's record of the interface it goes over: "default", or one of several; null where the kernel does not say. */
  iface: string | null
  /** LOGGED_IN, FAILED, FREE. */
  state: string
  /** The name this session was logged in with: a session keeps it when the host's name changes. */
  initiatorName: string | null
}

export function listSessions(sysfs: Sysfs): IscsiSession[] {
  return sysfs.list('sys/class/iscsi_session').map(id => {
    const base = `sys/class/iscsi_session/${id}`
    const host = /\/(host\d+)(?:\/|$)/.exec(sysfs.target(base) ?? '')?.[1] ?? ''
    return {
      id,
      host,
      target: sysfs.text(`${base}/targetname`) ?? 'unknown',
      portal: portalOf(sysfs, id),
      iface: sysfs.text(`${base}/ifacename`),
      state: sysfs.text(`${base}/state`) ?? 'unknown',
      initiatorName: sysfs.text(`${base}/initiatorname`),
    }
  })
}

/** Software iSCSI has one connection a session. */
function portalOf(sysfs: Sysfs, session: string): string | null {
  const base = `sys/class/iscsi_connection/connection${session.slice('session'.length)}:0`
  const [address, port] = [sysfs.text(`${base}/persistent_address`), sysfs.number(`${base}/persistent_port`)]
  if (address === null || port === null) return null
  return parsePortal(address.includes(':') ? `[${address}]:${port}` : `${address}:${port}`)
}

const targetsOf = (sessions: readonly IscsiSession[], host: string): StorageTarget[] =>
  sessions
    .filter(session => session.host === host)
    .map(session => ({ identifier: session.target, state: session.state }))

/** fc_remote_ports: those whose role is target ("FCP Target", Documentation/scsi/scsi_fc_transport.rst). */
function fcTargets(sysfs: Sysfs, host: string): StorageTarget[] {
  const prefix = `rport-${host.slice('host'.length)}:`
  return sysfs
    .list('sys/class/fc_remote_ports')
    .filter(name => name.startsWith(prefix))
    .filter(name => sysfs.text(`sys/class/fc_remote_ports/${name}/roles`)?.includes('Target') === true)
    .map(name => ({
      identifier: wwn(sysfs.text(`sys/class/fc_remote_ports/${name}/port_name`)) ?? name,
      state: sysfs.text(`sys/class/fc_remote_ports/${name}/port_state`) ?? 'unknown',
    }))
}

function sasLink(sysfs: Sysfs, host: string): Pick<StorageAdapter, 'identifier' | 'speed' | 'targets'> {
  const number = host.slice('host'.length)
  // phy-H:N is the adapter's own; phy-H:E:N would be an expander's.
  const own = sysfs.list('sys/class/sas_phy').filter(name => new RegExp(`^phy-${number}:\\d+$`).test(name))
  const rates = own
    .map(name => sysfs.text(`sys/class/sas_phy/${name}/negotiated_linkrate`))
    .filter(rate => rate !== null && /^\d/.test(rate))
  const targets = sysfs
    .list('sys/class/sas_device')
    .filter(name => name.startsWith(`end_device-${number}:`))
    .map(name => ({
      identifier: wwn(sysfs.text(`sys/class/sas_device/${name}/sas_address`)) ?? name,
      state: 'running',
    }))
  return {
    identifier: own[0] === undefined ? null : wwn(sysfs.text(`sys/class/sas_phy/${own[0]}/sas_address`)),
    speed: rates.length === 0 ? null : `${rates.length} × ${rates[0]}`,
    targets,
  }
}

/** libata makes one ata_link a port ("ata1" belongs to the host whose device path names it). */
function ataSpeed(sysfs: Sysfs, host: string): string | null {
  const ata = /\/(ata\d+)\//.exec(`${sysfs.target(`sys/class/scsi_host/${host}`) ?? ''}/`)?.[1]
  return ata === undefined ? null : known(sysfs.text(`sys/class/ata_link/${ata.replace('ata', 'link')}/sata_spd`))
}

function nvmeAdapter(sysfs: Sysfs, name: string): StorageAdapter {
  const base = `sys/class/nvme/${name}`
  const transport = sysfs.text(`${base}/transport`) ?? 'pcie'
  const subsystem = sysfs.text(`${base}/subsysnqn`)
  const state = sysfs.text(`${base}/state`) ?? 'unknown'
  const fabrics = transport !== 'pcie'
  return {
    name,
    kind: 'nvme',
    driver: fabrics ? `nvme-${transport}` : 'nvme',
    model: sysfs.text(`${base}/model`) ?? 'unknown',
    // Over fabrics the host has a name of its own; inside the host the controller's subsystem is all there is.
    identifier: (fabrics ? sysfs.text(`${base}/hostnqn`) : null) ?? subsystem,
    state,
    speed: known(sysfs.text(`${base}/device/current_link_speed`)),
    targets: fabrics && subsystem !== null ? [{ identifier: subsystem, state }] : [],
    hosts: [],
  }
}

/** proc_name is what the driver calls itself; some leave it empty, and then the device above has a driver link. */
function driverOf(sysfs: Sysfs, host: string): string {
  const named = sysfs.text(`sys/class/scsi_host/${host}/proc_name`)
  if (named !== null && named !== '<null>') return named
  for (const above of devicesAbove(sysfs, host)) {
    const driver = sysfs.targetName(`${above}/driver`)
    if (driver !== null) return driver
  }
  return 'unknown'
}

/** Attributes in which drivers tell their model: qla2xxx, lpfc, mpt3sas, megaraid_sas, in this order. */
const modelAttributes = ['model_name', 'modelname', 'board_name', 'model_desc', 'modeldesc']

function modelOf(sysfs: Sysfs, host: string): string {
  for (const attribute of modelAttributes) {
    const model = sysfs.text(`sys/class/scsi_host/${host}/${attribute}`)
    if (model !== null) return model
  }
  for (const above of devicesAbove(sysfs, host)) {
    const [vendor, device] = [sysfs.text(`${above}/vendor`), sysfs.text(`${above}/device`)]
    if (vendor?.startsWith('0x') && device?.startsWith('0x')) return `PCI ${vendor.slice(2)}:${device.slice(2)}`
  }
  return 'unknown'
}

/** Levels between a SCSI host and its PCI function: ataN, usb interfaces, virtual devices. */
const levelsMax = 6

function devicesAbove(sysfs: Sysfs, host: string): string[] {
  const found: string[] = []
  let at = sysfs.target(`sys/class/scsi_host/${host}/device`) ?? ''
  for (let level = 0; level < levelsMax && at.includes('/devices/'); level += 1) {
    at = dirname(at)
    found.push(at)
  }
  return found
}

/** "0x2100001b32…" as people and switches write it: 21:00:00:1b:32:… */
export function wwn(text: string | null): string | null {
  const digits = /^0x([0-9a-f]{16})$/i.exec(text ?? '')?.[1]
  return digits === undefined ? text : (digits.toLowerCase().match(/../g)?.join(':') ?? text)
}

const known = (text: string | null): string | null => (text === null || /^<?unknown/i.test(text) ? null : text)

/** Kinds for which a name can be set here. */
export const nameIsEditable = (adapter: Pick<StorageAdapter, 'kind' | 'name'>): boolean =>
  adapter.kind === ('iscsi' satisfies AdapterKind) && adapter.name === softwareIscsiName
