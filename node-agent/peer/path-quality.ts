/**
 * What is known of one path, from numbers that every packet carries: the sender's number on this path, and the newest
 * number heard on it with the time it was held. An answer thus measures this path alone, there and back.
 */
export interface PathSnapshot {
  /** Smoothed round trip, as TCP does it (RFC 6298 section 2); null = not measured yet. */
  rttMs: number | null
  rttMinMs: number | null
  /** Share of the peer's packets that did not arrive, over the last 10 to 20 s; null = too few to say. */
  loss: number | null
  /** null = never. */
  heardAgoMs: number | null
  /** How long ago something was sent that the peer has shown to have heard on this path: null = never. */
  heardByPeerAgoMs: number | null
}

/** Sent times that are remembered: at 50 packets a second an answer may take five seconds. */
const sentRingSize = 256
const lossWindowMs = 10_000
const lossCountMin = 10
const smoothing = 1 / 8
/** Numbers are 32 bits on the wire. */
const numberModulus = 2 ** 32
/** The time a number was held travels in microseconds; a longer one is not worth a measurement. */
export const heldMaxUs = 2 ** 32 - 1

export class PathQuality {
  #sent = 0
  readonly #sentAt = new Float64Array(sentRingSize)
  #heard: { number: number; at: number } | null = null
  #lastHeardAt: number | null = null
  #answeredSentAt: number | null = null
  #rttMs: number | null = null
  #rttMinMs: number | null = null
  #window: LossWindow | null = null
  #lastLoss: number | null = null

  /** The number of a packet about to be sent; 0 is never used, it stands for "none". */
  send(now: number): number {
    this.#sent = (this.#sent % (numberModulus - 1)) + 1
    this.#sentAt[this.#sent % sentRingSize] = now
    return this.#sent
  }

  /** What the next packet tells the peer about its own. */
  echo(now: number): { number: number; heldUs: number } {
    if (this.#heard === null) return { number: 0, heldUs: 0 }
    const heldUs = Math.min(heldMaxUs, Math.max(0, Math.round((now - this.#heard.at) * 1000)))
    return { number: this.#heard.number, heldUs }
  }

  receive(packet: { number: number; echo: number; heldUs: number }, now: number): void {
    if (this.#heard === null || packet.number > this.#heard.number) this.#heard = { number: packet.number, at: now }
    this.#countLoss(packet.number, now)
    this.#lastHeardAt = now
    if (packet.echo > 0 && packet.echo <= this.#sent && this.#sent - packet.echo < sentRingSize) {
      const sentAt = this.#sentAt[packet.echo % sentRingSize]!
      this.#answeredSentAt = Math.max(this.#answeredSentAt ?? 0, sentAt)
      if (packet.heldUs < heldMaxUs) this.#measure(now - sentAt - packet.heldUs / 1000)
    }
  }

  /** The peer's agent is another start: its numbers begin anew. */
  restart(): void {
    this.#heard = null
    this.#window = null
  }

  snapshot(now: number): PathSnapshot {
    return {
      rttMs: this.#rttMs,
      rttMinMs: this.#rttMinMs,
      loss: this.#lastLoss ?? (this.#window === null ? null : lossOf(this.#window)),
      heardAgoMs: this.#lastHeardAt === null ? null : now - this.#lastHeardAt,
      heardByPeerAgoMs: this.#answeredSentAt === null ? null : now - this.#answeredSentAt,
    }
  }

  #measure(rttMs: number): void {
    if (rttMs < 0) return
    this.#rttMs = this.#rttMs === null ? rttMs : this.#rttMs + (rttMs - this.#rttMs) * smoothing
    this.#rttMinMs = Math.min(this.#rttMinMs ?? rttMs, rttMs)
  }

  #countLoss(number: number, now: number): void {
    const window = this.#window
    if (window === null) {
      this.#window = { first: number, highest: number, count: 1, sinceMs: now }
      return
    }
    // One that was overtaken before the window began belongs to none.
    if (number < window.first) return
    window.count++
    window.highest = Math.max(window.highest, number)
    if (now - window.sinceMs < lossWindowMs) return
    this.#lastLoss = lossOf(window)
    this.#window = { first: window.highest + 1, highest: window.highest, count: 0, sinceMs: now }
  }
}

interface LossWindow {
  first: number
  highest: number
  count: number
  sinceMs: number
}

function lossOf(window: LossWindow): number | null {
  const expected = window.highest - window.first + 1
  return expected < lossCountMin ? null : Math.max(0, 1 - window.count / expected)
}
