import { readFileSync } from 'node:fs'
import type { ClusterSpec } from './cluster.ts'
import { membersOf, scan } from './processes.ts'

/**
 * What the silence of a primary means. Longer than the limit, and it hangs: another host that could go on should. Where
 * none could, a start anew is all that is left, and on a starved host it only makes the outage longer: recovery and a cold
 * start where a moment's patience would do, and then the next one. So a server is stuck, and worth a start, only after a
 * silence that its host had no part in, or one so long that whatever the reason is no patience is left.
 */
const stuckAfter = 10
const patienceMs = 120_000
/** Looks at its processes, while it is silent. */
const lookEveryMs = 500
/** Of a server with more, those it began with (the postmaster, the writers of its log) and the newest. */
const processesMax = 64

/** So long in ms it has waited for a processor in its life, and whether it waits for a disk now. */
export interface Hardship {
  waitedMs: number
  inDisk: boolean
}

export class Silence {
  readonly #hangMs: number
  readonly #look: () => Map<number, Hardship>
  #before: Map<number, Hardship> | null = null
  #lookedAt = 0
  #beganAt = 0
  #heldMs = 0

  /** `look`: the processes of the server now, by their number. */
  constructor({ hangMs, look }: { hangMs: number; look: () => Map<number, Hardship> }) {
    this.#hangMs = hangMs
    this.#look = look
  }

  /** For how much of this silence, in ms, the host kept the server from running, as far as was seen. */
  get heldMs(): number {
    return Math.min(this.#heldMs, this.#lookedAt - this.#beganAt)
  }

  /** To be told each 100 ms or so. @param silentMs since when an answer has been due; 0: none is */
  judge(silentMs: number, nowMs: number): { hanging: boolean; stuck: boolean } {
    if (silentMs <= this.#hangMs) {
      this.#before = null
      this.#heldMs = 0
      return { hanging: false, stuck: false }
    }
    if (this.#before === null || nowMs - this.#lookedAt >= lookEveryMs) this.#note(nowMs)
    const stuck = silentMs - this.heldMs > this.#hangMs * stuckAfter || silentMs > patienceMs
    return { hanging: true, stuck }
  }

  /** One process that could not run is enough: whoever is waited for may be waiting for it. */
  #note(nowMs: number): void {
    const now = this.#look()
    const before = this.#before
    if (before === null) this.#beganAt = nowMs
    else {
      const sinceMs = nowMs - this.#lookedAt
      const held = [...now].map(([pid, { waitedMs, inDisk }]) => {
        const was = before.get(pid)
        return Math.max(waitedMs - (was?.waitedMs ?? 0), inDisk && was?.inDisk === true ? sinceMs : 0)
      })
      this.#heldMs += Math.max(0, ...held)
    }
    this.#before = now
    this.#lookedAt = nowMs
  }
}

/** The processes of a cluster as they are now: two small files of /proc for each. */
export function hardships(spec: ClusterSpec): Map<number, Hardship> {
  const found = new Map<number, Hardship>()
  for (const pid of toLookAt(spec)) {
    try {
      // proc_pid_schedstat(5), the second figure in ns; proc_pid_stat(5), the state behind the name.
      const waitedMs = Number(readFileSync(`/proc/${pid}/schedstat`, 'latin1').split(' ')[1]) / 1e6
      const stat = readFileSync(`/proc/${pid}/stat`, 'latin1')
      found.set(pid, { waitedMs, inDisk: stat.startsWith('D', stat.lastIndexOf(')') + 2) })
    } catch {
      // It ended between the two looks.
    }
  }
  return found
}

function toLookAt(spec: ClusterSpec): number[] {
  const all = membersNow(spec).sort((x, y) => x - y)
  return all.length <= processesMax ? all : [...all.slice(0, processesMax / 2), ...all.slice(-processesMax / 2)]
}

/** None where the kernel does not list them, for want of descriptors. */
function membersNow(spec: ClusterSpec): number[] {
  if (spec.cgroup !== null) return membersOf(spec)
  try {
    return scan(spec)
  } catch {
    return []
  }
}
