/**
 * What the observers saw, and the judgement over it: did two hosts serve at one instant?
 *
 * Each success was served at some unknown instant between its request's start and its answer's end. So of a database
 * instance it is certain that it served at the latest at the first answer's end, and at the earliest at the last
 * request's start; in between it is taken to serve, because an instance that gave its role away is killed and never
 * serves again. Two such certain spans of two hosts that overlap are a violation, whatever the exact instants were.
 */

export type Operation = 'read' | 'write'

/** Successes of one operation of one instance at one target, without a pause longer than {@link SPAN_PAUSE_MS}. */
export interface ServedSpan {
  /** A running database server: its start time, as it tells it. Equal on no two hosts. */
  instance: string
  target: string
  operation: Operation
  firstStartMs: number
  firstEndMs: number
  lastStartMs: number
  lastEndMs: number
  count: number
}

/** At a rhythm of 10 ms this is an interruption and not jitter of the machine. */
export const SPAN_PAUSE_MS = 200
/** A flapping fault for an hour makes a few thousand; beyond it the oldest are merged into one. */
const SPANS_LIMIT = 20_000

export interface Success {
  instance: string
  target: string
  operation: Operation
  startMs: number
  endMs: number
}

export class Observations {
  private readonly spans: ServedSpan[] = []
  private readonly latest = new Map<string, ServedSpan>()

  add({ instance, target, operation, startMs, endMs }: Success): void {
    const key = `${instance}\n${target}\n${operation}`
    const current = this.latest.get(key)
    const mustExtend = this.spans.length >= SPANS_LIMIT && current !== undefined
    if (current !== undefined && (mustExtend || startMs - current.lastEndMs <= SPAN_PAUSE_MS)) {
      current.lastStartMs = Math.max(current.lastStartMs, startMs)
      current.lastEndMs = Math.max(current.lastEndMs, endMs)
      current.firstEndMs = Math.min(current.firstEndMs, endMs)
      current.count += 1
      return
    }
    const times = { firstStartMs: startMs, firstEndMs: endMs, lastStartMs: startMs, lastEndMs: endMs }
    const span: ServedSpan = { instance, target, operation, ...times, count: 1 }
    this.spans.push(span)
    this.latest.set(key, span)
  }

  all(): readonly ServedSpan[] {
    return this.spans
  }
}

export interface InstanceReport {
  instance: string
  /** The host it runs on where a target told it, else null. */
  host: string | null
  /** It certainly served from here on (or earlier) … */
  certainFromMs: number
  /** … until here (or later). */
  certainToMs: number
  /** It cannot have been seen serving before … */
  possibleFromMs: number
  /** … or after. */
  possibleToMs: number
  reads: number
  writes: number
  targets: string[]
}

export interface Overlap {
  instances: [InstanceReport, InstanceReport]
  /** Both served, without doubt, for so long; 0 also where one answered a single time within the other's span. */
  certainMs: number
  /** One answered, without doubt, while the other was serving. */
  isCertain: boolean
  /** Upper bound: the requests' own durations included. */
  possibleMs: number
}

export interface Judgement {
  instances: InstanceReport[]
  /** Must be empty. */
  violations: Overlap[]
  /** Overlaps within the duration of single requests: no proof of anything, shown for honesty. */
  undecided: Overlap[]
}

/** Targets that only one host can answer are named `HOST:…`; others, like the VIP, have no colon. */
function hostOfTarget(target: string): string | null {
  return target.includes(':') ? target.slice(0, target.indexOf(':')) : null
}

function reportInstance(instance: string, spans: readonly ServedSpan[]): InstanceReport {
  const count = (operation: Operation): number =>
    spans.filter(span => span.operation === operation).reduce((sum, span) => sum + span.count, 0)
  return {
    instance,
    host: spans.map(span => hostOfTarget(span.target)).find(host => host !== null) ?? null,
    certainFromMs: Math.min(...spans.map(span => span.firstEndMs)),
    certainToMs: Math.max(...spans.map(span => span.lastStartMs)),
    possibleFromMs: Math.min(...spans.map(span => span.firstStartMs)),
    possibleToMs: Math.max(...spans.map(span => span.lastEndMs)),
    reads: count('read'),
    writes: count('write'),
    targets: [...new Set(spans.map(span => span.target))].sort(),
  }
}

/** Whether a whole request of `spans` lies within the time in which `other` certainly served. */
function answeredWithin(spans: readonly ServedSpan[], other: InstanceReport): boolean {
  const isWithin = (startMs: number, endMs: number): boolean =>
    startMs >= other.certainFromMs && endMs <= other.certainToMs
  return spans.some(span => isWithin(span.firstStartMs, span.firstEndMs) || isWithin(span.lastStartMs, span.lastEndMs))
}

function overlapOf(spans: readonly ServedSpan[], one: InstanceReport, other: InstanceReport): Overlap {
  const of = (report: InstanceReport): ServedSpan[] => spans.filter(span => span.instance === report.instance)
  const certainMs = Math.min(one.certainToMs, other.certainToMs) - Math.max(one.certainFromMs, other.certainFromMs)
  const possibleMs = Math.min(one.possibleToMs, other.possibleToMs) - Math.max(one.possibleFromMs, other.possibleFromMs)
  return {
    instances: [one, other],
    certainMs: Math.max(0, certainMs),
    isCertain: certainMs > 0 || answeredWithin(of(one), other) || answeredWithin(of(other), one),
    possibleMs: Math.max(0, possibleMs),
  }
}

/** @param spans of all observers together */
export function judgeObservations(spans: readonly ServedSpan[]): Judgement {
  const names = [...new Set(spans.map(span => span.instance))]
  const instances = names
    .map(name =>
      reportInstance(
        name,
        spans.filter(span => span.instance === name),
      ),
    )
    .sort((one, other) => one.certainFromMs - other.certainFromMs)
  const overlaps: Overlap[] = []
  for (const [index, one] of instances.entries()) {
    for (const other of instances.slice(index + 1)) {
      // One host restarting its database is no second host; an unknown host is taken for another one.
      if (one.host !== null && one.host === other.host) continue
      overlaps.push(overlapOf(spans, one, other))
    }
  }
  return {
    instances,
    violations: overlaps.filter(overlap => overlap.isCertain),
    undecided: overlaps.filter(overlap => !overlap.isCertain && overlap.possibleMs > 0),
  }
}
