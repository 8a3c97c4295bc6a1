/**
 * What happened, as a running hash of numbers that costs next to nothing, and as text only on demand.
 * The hash is the same with and without text, so that a run can be compared with its own replay.
 */
export class Trace {
  /** Text lines; null when nobody asked for them. */
  readonly lines: string[] | null
  private low = 0x811c9dc5
  private high = 0x1b873593

  constructor(options: { text: boolean }) {
    this.lines = options.text ? [] : null
  }

  get on(): boolean {
    return this.lines !== null
  }

  mix(number: number): void {
    const whole = Math.floor(number)
    this.low = Math.imul(this.low ^ (whole | 0), 0x01000193)
    this.high = Math.imul(this.high ^ ((number - whole) * 0x7fffffff) ^ (whole / 4294967296) ^ this.low, 0x85ebca6b)
  }

  line(now: number, who: string, text: string): void {
    this.lines?.push(`${now.toFixed(3).padStart(12)} ${who.padEnd(6)} ${text}`)
  }

  get hash(): string {
    const hex = (n: number) => (n >>> 0).toString(16).padStart(8, '0')
    return hex(this.high) + hex(this.low)
  }
}
