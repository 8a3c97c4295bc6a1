/** One figure, with what it is held against: the bound of the product's promise, or a floor measured in the same run. */
export interface Row {
  name: string
  value: number
  unit: string
  bound?: { atMost: number } | { atLeast: number }
  /** How it came about: floors, counts, processor. */
  of?: Record<string, unknown>
}

export const met = ({ value, bound }: Row): boolean | null =>
  bound === undefined ? null : 'atMost' in bound ? value <= bound.atMost : value >= bound.atLeast

export const rounded = (value: number, digits = 2): number => Math.round(value * 10 ** digits) / 10 ** digits

export function show(row: Row): string {
  const { name, value, unit, bound } = row
  const limit = bound === undefined ? '' : 'atMost' in bound ? `at most ${bound.atMost}` : `at least ${bound.atLeast}`
  const verdict = met(row)
  return `${name.padEnd(62)} ${String(value).padStart(9)} ${unit.padEnd(8)} ${limit}${verdict === false ? '  MISSED' : ''}`
}
