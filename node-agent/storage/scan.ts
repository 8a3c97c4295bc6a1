import { spawn } from 'node:child_process'
import { join } from 'node:path'
import { type DeviceChange, deviceChange, type StorageAdapter, type StorageDevice } from '../../shared/hosts/storage.ts'
import { exec } from '../exec.ts'
import { nameIsEditable } from './adapters.ts'
import type { Sysfs } from './sysfs.ts'

/**
 * Has adapters look for devices again. A write to a host's `scan` attribute takes as long as its slowest target, and
 * hangs with a dead path, even past a SIGKILL: so each is a child of its own with a time limit, and an adapter whose
 * last scan still hangs is not asked again.
 */

export interface ScanOptions {
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
    if (nameIsEditable(adapter)) {
      if (adapter.hosts.length === 0) return null
      const result = await exec(['iscsiadm', '--mode', 'session', '--rescan'], { limitMs })
      return result.ok ? null : result.why
    }
    if (adapter.kind === 'nvme')
      return this.#write(`sys/class/nvme/${adapter.name}/rescan_controller`, { text: '1', limitMs })
    for (const host of adapter.hosts) {
      if (options.lip && (adapter.kind === 'fc' || adapter.kind === 'fcoe')) {
        const lip = await this.#write(`sys/class/fc_host/${host}/issue_lip`, { text: '1', limitMs })
        if (lip !== null) return lip
      }
      const scan = await this.#write(`sys/class/scsi_host/${host}/scan`, { text: everything, limitMs })
      if (scan !== null) return scan
    }
    const paths = before.flatMap(device => device.paths.filter(path => path.adapter === adapter.name))
    for (const path of paths.slice(0, rescansMax)) {
      const resize = await this.#write(`sys/block/${path.name}/device/rescan`, { text: '1', limitMs })
      if (resize !== null) return resize
    }
    return null
  }

  /** null, or why it could not be written. */
  #write(path: string, { text, limitMs }: { text: string; limitMs: number }): Promise<string | null> {
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
      }, limitMs)
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
