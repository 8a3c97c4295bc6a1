import { spawn } from 'node:child_process'
import { join } from 'node:path'
import { showFault } from '../../shared/hosts/fault.ts'
import {
  type DeviceChange,
  deviceChange,
  lipFault,
  type StorageAdapter,
  type StorageDevice,
} from '../../shared/hosts/storage.ts'
import { exec } from '../exec.ts'
import { nameIsEditable } from './adapters.ts'
import type { Sysfs } from './sysfs.ts'

/**
 * Has adapters look for devices again. A write to a host's `scan` attribute takes as long as its slowest target, and
 * hangs with a dead path, even past a SIGKILL: so each is a child of its own with a time limit, and an adapter whose
 * last scan still hangs is not asked again.
 */

export interface ScanOptions {
  /** For each adapter, however many of its devices are asked. */
  limitMs: number
  /** Fibre Channel: LIP first. It interrupts the traffic of the whole loop or port, so only when asked. */
  lip: boolean
}

export type AdapterScan =
  | { adapter: string; ok: true; ms: number }
  | { adapter: string; ok: false; ms: number; why: string }

export interface ScanResult {
  adapters: AdapterScan[]
  change: DeviceChange
}

export interface ScanParts {
  sysfs: Sysfs
  /** Looks at all devices anew. */
  devices: () => Promise<readonly StorageDevice[]>
  nowMs?: () => number
}

export type Chosen = { ok: true; adapters: StorageAdapter[] } | { ok: false; why: string }

/** The adapters of these names; no name: all of them. */
export function chooseAdapters(
  there: readonly StorageAdapter[],
  { names, lip }: { names: readonly string[]; lip: boolean },
): Chosen {
  const missing = names.find(name => !there.some(one => one.name === name))
  if (missing !== undefined) {
    const known = there.map(one => one.name).join(', ') || 'none'
    const why = showFault({ field: 'adapters', value: missing, rule: `must be adapters of this host; it has ${known}` })
    return { ok: false, why }
  }
  const fault = lip ? lipFault(names, there) : null
  if (fault !== null) return { ok: false, why: showFault(fault) }
  return { ok: true, adapters: names.length === 0 ? [...there] : there.filter(one => names.includes(one.name)) }
}

/** All channels, targets and LUNs (Documentation/scsi/scsi_mid_low_api.rst, "scan"). */
const everything = '- - -'
/** Devices of one adapter whose capacity is read again: each is one write. */
const rescansMax = 4096

export class Scanner {
  readonly #parts: ScanParts
  /** Attributes that a child is still writing to, past its limit. */
  readonly #hanging = new Set<string>()

  constructor(parts: ScanParts) {
    this.#parts = parts
  }

  /** All at once: one that hangs does not hold the others up. Devices that are gone are told, never removed. */
  async scan(adapters: readonly StorageAdapter[], options: ScanOptions): Promise<ScanResult> {
    const before = await this.#parts.devices()
    const scans = await Promise.all(adapters.map(adapter => this.#one(adapter, { before, options })))
    const after = await this.#parts.devices()
    return { adapters: scans, change: deviceChange(before, after) }
  }

  async #one(
    adapter: StorageAdapter,
    { before, options }: { before: readonly StorageDevice[]; options: ScanOptions },
  ): Promise<AdapterScan> {
    const began = performance.now()
    const why = await this.#work(adapter, { before, options })
    const ms = Math.round(performance.now() - began)
    return why === null ? { adapter: adapter.name, ok: true, ms } : { adapter: adapter.name, ok: false, ms, why }
  }

  async #work(
    adapter: StorageAdapter,
    { before, options }: { before: readonly StorageDevice[]; options: ScanOptions },
  ): Promise<string | null> {
    const { limitMs } = options
    const { nowMs = () => performance.now() } = this.#parts
    const end = nowMs() + limitMs
    const write = async (path: string, text: string): Promise<string | null> => {
      const leftMs = end - nowMs()
      if (leftMs <= 0) return `the ${limitMs} ms of ${adapter.name} were over before /${path} was asked`
      return this.#write(path, { text, limitMs, leftMs })
    }
    if (nameIsEditable(adapter)) {
      if (adapter.hosts.length === 0) return null
      const result = await exec(['iscsiadm', '--mode', 'session', '--rescan'], { limitMs, whenKilled: 'leave' })
      return result.ok ? null : result.why
    }
    if (adapter.kind === 'nvme') return write(`sys/class/nvme/${adapter.name}/rescan_controller`, '1')
    for (const host of adapter.hosts) {
      if (options.lip && (adapter.kind === 'fc' || adapter.kind === 'fcoe')) {
        const lip = await write(`sys/class/fc_host/${host}/issue_lip`, '1')
        if (lip !== null) return lip
      }
      const scan = await write(`sys/class/scsi_host/${host}/scan`, everything)
      if (scan !== null) return scan
    }
    const paths = before.flatMap(device => device.paths.filter(path => path.adapter === adapter.name))
    for (const path of paths.slice(0, rescansMax)) {
      const resize = await write(`sys/block/${path.name}/device/rescan`, '1')
      // A device that has gone since the look before is told as removed, and holds up no other one.
      if (resize !== null && this.#parts.sysfs.has(`sys/block/${path.name}`)) return resize
    }
    return null
  }

  /** null, or why it could not be written. */
  #write(
    path: string,
    { text, limitMs, leftMs }: { text: string; limitMs: number; leftMs: number },
  ): Promise<string | null> {
    if (this.#hanging.has(path)) return Promise.resolve(`an earlier write to /${path} still hangs in its driver`)
    const child = spawn('tee', [join(this.#parts.sysfs.root, path)], { stdio: ['pipe', 'ignore', 'pipe'] })
    let said = ''
    child.stderr.on('data', (chunk: Buffer) => {
      said = `${said}${chunk.toString()}`.slice(0, saidMax)
    })
    child.stdin.on('error', () => {})
    child.stdin.end(`${text}\n`)
    return new Promise(resolve => {
      const timer = setTimeout(() => {
        // A process in the driver does not die of it; whoever is the last to see it end takes the mark away.
        this.#hanging.add(path)
        child.kill('SIGKILL')
        child.unref()
        resolve(`/${path} did not take the request within ${limitMs} ms; its driver hangs`)
      }, leftMs)
      child.on('error', error => {
        clearTimeout(timer)
        resolve(error.message)
      })
      child.on('close', code => {
        clearTimeout(timer)
        this.#hanging.delete(path)
        resolve(code === 0 ? null : said.trim() || `writing to /${path} failed`)
      })
    })
  }
}
const saidMax = 400
