import type { Figures } from '../../shared/figures.ts'

/** One line of JSON with --json, else a list for people. */
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
