import { assert } from './assert.ts'

/** A WAL position as PostgreSQL writes it ("16/B374D848"), in bytes: exact as a number up to 8 PiB of log. */
export function parseLsn(text: string): number {
  const match = /^([0-9A-Fa-f]{1,8})\/([0-9A-Fa-f]{1,8})$/.exec(text)
  assert(match !== null, `"${text}" is not a position in the log; PostgreSQL writes it like 16/B374D848`)
  const lsn = Number.parseInt(match[1]!, 16) * 2 ** 32 + Number.parseInt(match[2]!, 16)
  assert(lsn < 2 ** 53, `the log position ${text} is past 8 PiB`)
  return lsn
}

export const showLsn = (lsn: number): string =>
  `${Math.floor(lsn / 2 ** 32)
    .toString(16)
    .toUpperCase()}/${(lsn % 2 ** 32).toString(16).toUpperCase()}`

/** The timeline is the first eight hex digits of a WAL file's name (manual, 30.5 "WAL Internals"). */
export function timelineOfFile(name: string): number {
  assert(/^[0-9A-F]{24}$/.test(name), `"${name}" is not the name of a WAL file`)
  return Number.parseInt(name.slice(0, 8), 16)
}
export const showTimeline = (timeline: number): string => timeline.toString(16).toUpperCase().padStart(8, '0')
