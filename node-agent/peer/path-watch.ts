import type { LinkPath } from '../ports.ts'

/** Heartbeats come ten times a lease, on every path: one without any for this long is down, whatever the profile. */
export const pathSilentMs = 5_000
/** Of the last ten seconds; ten times what a link in order loses, and far below what the pair bears on one path alone. */
const lossMaxPercent = 10

/**
 * Paths between the hosts that the pair does without as long as there is another one: nobody would notice the loss of the
 * first before that of the last.
 */
export class PathWatch {
  readonly #sinceMs: number

  /** @param nowMs of the agent's start: nothing can have been heard before */
  constructor(nowMs: number) {
    this.#sinceMs = nowMs
  }

  /** A sentence, or '': in calm, and where no path is heard, which is the other host's silence and said as that. */
  trouble(paths: readonly LinkPath[], nowMs: number): string {
    const silentMs = ({ heardMs }: LinkPath): number => heardMs ?? nowMs - this.#sinceMs
    const silent = paths.filter(path => silentMs(path) > pathSilentMs)
    if (silent.length === paths.length) return ''
    const found = [
      ...silent.map(path => `${named(path)} is silent`),
      ...paths
        .filter(path => !silent.includes(path) && (path.lossPercent ?? 0) > lossMaxPercent)
        .map(path => `${named(path)} loses more than ${lossMaxPercent} %`),
    ]
    if (found.length === 0) return ''
    const good = paths.length - found.length
    const left = good === 0 ? 'no path between the hosts is in order' : `${good} of ${paths.length} is in order`
    return `the path ${found.join(', the path ')}; ${left}: look at cable, port and switch`
  }
}

const named = ({ local, peer }: LinkPath): string => `${local} to ${peer}`
