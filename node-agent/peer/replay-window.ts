/**
 * Remembers which of the last numbers were seen, as in RFC 4303 section 3.4.3: a number is taken once, and one that
 * fell out of the window counts as seen. The window must be wider than what the slowest path lags behind the fastest:
 * 1024 numbers are about four seconds of two paths in their busiest time.
 */
const windowSize = 1024

export class ReplayWindow {
  #highest = -1
  readonly #seen = new Uint8Array(windowSize)

  /** True the first time. Call it only with numbers that are authenticated. */
  take(number: number): boolean {
    if (number > this.#highest) {
      const skipped = Math.min(number - this.#highest, windowSize)
      for (let i = 0; i < skipped; i++) this.#seen[(number - i) % windowSize] = 0
      this.#highest = number
    } else if (number <= this.#highest - windowSize || this.#seen[number % windowSize] === 1) {
      return false
    }
    this.#seen[number % windowSize] = 1
    return true
  }
}
