/**
 * One timer of the kernel's own (timerfd_create(2)), which can be moved without waking the process.
 *
 * Node has one timer for all of its own and never sets it later: each one that is cleared or moved, as the next tick is
 * with every message that arrives, still wakes the process at its old time, for nothing. On an idle agent that was a
 * quarter of all wake-ups. This one also fires when it is asked to, and not up to a millisecond later.
 */
import koffi from 'koffi'
import { closeFd, KernelError } from './libc.ts'

const libc = koffi.load('libc.so.6')
const timerfdCreate = libc.func('int timerfd_create(int clock, int flags)')
const timerfdSettime = libc.func('int timerfd_settime(int fd, int flags, const void *value, void *before)')

/** As Node's own timers: a suspend is none of its business. */
const CLOCK_MONOTONIC = 1
const TFD_NONBLOCK = 0o4000
const TFD_CLOEXEC = 0o2000000
/** struct itimerspec in halves of its numbers: interval, then time until the first expiry, each of seconds and nanoseconds. */
const ITIMERSPEC_WORDS = 8
const VALUE_SECONDS = 4
const VALUE_NANOSECONDS = 6
const NS_PER_S = 1e9
/** A time of zero would switch the timer off. */
const leastNs = 1

export class KernelTimer {
  readonly #run: () => void
  readonly #value = new Uint32Array(ITIMERSPEC_WORDS)
  /** Open while it is set: a process in which no timer is set may end. */
  #open: { fd: number; watch: { close: () => void } } | null = null
  #isSet = false

  constructor(run: () => void) {
    this.#run = run
  }

  /** Fires once, so many milliseconds from now (fractions count), whatever it was set to before. */
  set(inMs: number): void {
    this.#open ??= this.#watch()
    this.#isSet = true
    this.#arm(this.#open.fd, Math.max(leastNs, Math.round(inMs * 1e6)))
  }

  /** Does not fire any more; it may be set again. */
  clear(): void {
    if (this.#open === null) return
    const { fd, watch } = this.#open
    this.#open = null
    watch.close()
    closeFd(fd)
  }

  #watch(): { fd: number; watch: { close: () => void } } {
    const fd = timerfdCreate(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC)
    if (fd < 0) throw new KernelError('timerfd_create', koffi.errno())
    return { fd, watch: koffi.node.poll(fd, { readable: true }, () => this.#fired(fd)) }
  }

  #fired(fd: number): void {
    if (this.#open?.fd !== fd) return
    this.#isSet = false
    try {
      this.#run()
    } finally {
      // It stays readable until it is set anew, which most often has just been done.
      if (this.#open?.fd === fd && !this.#isSet) this.#arm(fd, 0)
    }
  }

  /** 0: not at all. */
  #arm(fd: number, ns: number): void {
    this.#value[VALUE_SECONDS] = Math.floor(ns / NS_PER_S)
    this.#value[VALUE_NANOSECONDS] = ns % NS_PER_S
    if (timerfdSettime(fd, 0, this.#value, null) < 0) throw new KernelError('timerfd_settime', koffi.errno())
  }
}
