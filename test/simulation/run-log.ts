import { appendFileSync, existsSync, readFileSync } from 'node:fs'

/**
 * What was run so far, one line for each part of an accumulation, append only. Seeds are used once: the next
 * accumulation goes on where the last line ends, whichever commit it runs.
 */
export interface LogLine {
  commit: string
  first: number
  /** First seed after this part. */
  next: number
  violations: number
  hours: number
  steps: number
  minutes: number
  at: string
}

const pattern =
  /^(\S+) commit=(\S+) seeds=(\d+)\.\.(\d+) violations=(\d+) pairHours=([\d.]+) steps=(\d+) minutes=([\d.]+)$/

export function readLog(file: string): LogLine[] {
  if (!existsSync(file)) return []
  const lines: LogLine[] = []
  for (const [index, text] of readFileSync(file, 'utf8').split('\n').entries()) {
    if (text === '' || text.startsWith('#')) continue
    const match = pattern.exec(text)
    if (match === null) throw new Error(`${file}:${index + 1}: "${text}" is not a line of a run log`)
    const [, at = '', commit = '', first, last, violations, hours, steps, minutes] = match
    lines.push({
      at,
      commit,
      first: Number(first),
      next: Number(last) + 1,
      violations: Number(violations),
      hours: Number(hours),
      steps: Number(steps),
      minutes: Number(minutes),
    })
  }
  return lines
}

export function appendLog(file: string, line: LogLine): void {
  const head = existsSync(file)
    ? ''
    : '# Runs of the simulation, append only: npm run sim -- --log FILE goes on where the last line ends.\n'
  appendFileSync(
    file,
    `${head}${line.at} commit=${line.commit} seeds=${line.first}..${line.next - 1} violations=${line.violations} pairHours=${line.hours.toFixed(2)} steps=${line.steps} minutes=${line.minutes.toFixed(2)}\n`,
  )
}

/** The count reached. */
export function sumLog(lines: readonly LogLine[]): { runs: number; violations: number; hours: number; next: number } {
  const sum = { runs: 0, violations: 0, hours: 0, next: 1 }
  for (const line of lines) {
    sum.runs += line.next - line.first
    sum.violations += line.violations
    sum.hours += line.hours
    sum.next = Math.max(sum.next, line.next)
  }
  return sum
}
