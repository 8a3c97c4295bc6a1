/** The figures of one measured thing, in the unit of its values. */
export interface Summary {
  runs: number
  min: number
  median: number
  p90: number
  p99: number
  max: number
}

export function summary(values: readonly number[]): Summary {
  const sorted = [...values].sort((x, y) => x - y)
  const at = (share: number): number =>
    sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] ?? Number.NaN
  const middle = sorted.length / 2
  const median =
    sorted.length % 2 === 1 ? at(0.5) : ((sorted[middle - 1] ?? Number.NaN) + (sorted[middle] ?? Number.NaN)) / 2
  const round = (value: number): number => Math.round(value * 10) / 10
  return {
    runs: sorted.length,
    min: round(at(0)),
    median: round(median),
    p90: round(at(0.9)),
    p99: round(at(0.99)),
    max: round(sorted.at(-1) ?? Number.NaN),
  }
}

/** In columns, as `median [min … max]`. */
export const showSummary = ({ median, min, max }: Summary): string =>
  `${median.toFixed(0).padStart(6)} [${min.toFixed(0)} … ${max.toFixed(0)}]`
