/** How long the parts of a stop took. Nothing else tells afterwards why an agent was away for longer than another time. */
export class StopTimes {
  readonly #beganAt = performance.now()
  readonly #parts: string[] = []

  async part(name: string, work: Promise<void>): Promise<void> {
    const beganAt = performance.now()
    await work
    this.#parts.push(`${name} ${Math.round(performance.now() - beganAt)}`)
  }

  sentence(): string {
    return `stopped after ${Math.round(performance.now() - this.#beganAt)} ms (${this.#parts.join(', ')})`
  }
}
