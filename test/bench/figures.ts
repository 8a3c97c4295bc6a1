/** Percentiles of a list of milliseconds, for the benchmarks' one-line JSON. */
export interface Figures {
  count: number
  p50Ms: number
  p99Ms: number
  maxMs: number
}

export function figuresOf(samplesMs: readonly number[]): Figures {
  const sorted = [...samplesMs].sort((x, y) => x - y)
  const at = (share: number): number =>
    round(sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? 0)
  return { count: sorted.length, p50Ms: at(0.5), p99Ms: at(0.99), maxMs: at(1) }
}

const round = (ms: number): number => Math.round(ms * 1000) / 1000

export function printFigures(name: string, result: { [part: string]: Figures | number | string }): void {
  if (process.argv.includes('--json')) {
    console.log(JSON.stringify({ bench: name, ...result }))
    return
  }
  console.log(name)
  for (const [part, value] of Object.entries(result)) {
    const text =
      typeof value === 'object'
        ? `p50 ${value.p50Ms} ms, p99 ${value.p99Ms} ms, max ${value.maxMs} ms (${value.count})`
        : String(value)
    console.log(`  ${part}: ${text}`)
  }
}
