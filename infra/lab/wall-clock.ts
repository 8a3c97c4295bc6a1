/**
 * Loaded into a lab host's Node programs before anything else (`node --import`): their wall clock is off by what a file
 * says, so that it can jump on one host alone. Linux has no namespace for CLOCK_REALTIME.
 */

import { existsSync, readFileSync } from 'node:fs'

/** The file is looked at no more often than this; a jump is seen that late. */
const LOOK_EVERY_MS = 20

const RealDate = Date
const file = process.env.UNDERSTUDY_LAB_WALL_CLOCK
let offsetMs = 0
let lookedAtMs = Number.NEGATIVE_INFINITY

function currentOffsetMs(path: string): number {
  const now = performance.now()
  if (now - lookedAtMs >= LOOK_EVERY_MS) {
    lookedAtMs = now
    try {
      // No file, no offset; mostly there is none, and an exception for each look would be the most of what it takes.
      offsetMs = existsSync(path) ? Number(readFileSync(path, 'utf8')) || 0 : 0
    } catch {
      offsetMs = 0
    }
  }
  return offsetMs
}

if (file !== undefined) {
  globalThis.Date = new Proxy(RealDate, {
    construct: (target, args: unknown[], newTarget) =>
      Reflect.construct(target, args.length === 0 ? [RealDate.now() + currentOffsetMs(file)] : args, newTarget) as Date,
    apply: () => new RealDate(RealDate.now() + currentOffsetMs(file)).toString(),
    get: (target, key, receiver) =>
      key === 'now' ? () => RealDate.now() + currentOffsetMs(file) : (Reflect.get(target, key, receiver) as unknown),
  })
}
