import type { ServiceContext, ServiceState, ServicesPort } from '../ports.ts'

/**
 * Services and the trees they write, in their order: a service starts only when this host's trees are open to it (the
 * epoch durable, what arrived finished or dropped), and the files worker makes this host's copy the backup's only when
 * no service can write to it any more.
 */
export interface OrderedServicesPart {
  services: ServicesPort
  /** The files worker has opened the trees for the present term. */
  isOpen: () => boolean
  note: (why: string) => void
}

const lookMs = 10
/** Opening takes some tenths of a second; longer has a reason that status shows. */
const longWaitMs = 5_000

export class OrderedServices implements ServicesPort {
  readonly #part: OrderedServicesPart
  #waiting: NodeJS.Timeout | null = null

  constructor(part: OrderedServicesPart) {
    this.#part = part
  }

  start(context: ServiceContext): void {
    this.#forget()
    if (this.#part.isOpen()) {
      this.#part.services.start(context)
      return
    }
    const beganMs = performance.now()
    let isTold = false
    this.#waiting = setInterval(() => {
      if (this.#part.isOpen()) {
        this.#forget()
        this.#part.services.start(context)
      } else if (!isTold && performance.now() - beganMs > longWaitMs) {
        isTold = true
        this.#part.note(
          'the services wait: the trees of files are not open on this host yet, `understudy sync status` says why',
        )
      }
    }, lookMs)
  }

  stop(context: ServiceContext): Promise<void> {
    this.#forget()
    return this.#part.services.stop(context)
  }

  state(): ServiceState[] {
    const states = this.#part.services.state()
    if (this.#waiting === null) return states
    const why = 'waits for the trees of files to be open on this host'
    return states.map(state => (state.state === 'stopped' ? { ...state, state: 'starting', why } : state))
  }

  onExhausted(tell: Parameters<ServicesPort['onExhausted']>[0]): void {
    this.#part.services.onExhausted(tell)
  }

  detach(): void {
    this.#forget()
    this.#part.services.detach()
  }

  #forget(): void {
    if (this.#waiting !== null) clearInterval(this.#waiting)
    this.#waiting = null
  }
}
