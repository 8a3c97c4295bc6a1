import type { Durable } from '../../shared/protocol/types.ts'
import { bootMs } from '../kernel/clock.ts'
import type { StateStorePort } from '../ports.ts'
import { bundledStateWriter } from '../self.ts'
import { openStateFile, type StateFile, type StateFileOptions } from '../state-file/state-file.ts'

/** How long a stopping agent waits for a write that is under way. */
const closeLimitMs = 2000

/** The child that writes the state, when this program is one file. */
export function stateWriter(): Pick<StateFileOptions, 'writer'> {
  const writer = bundledStateWriter()
  return writer === undefined ? {} : { writer }
}

/** The durable state as the executor sees it: one write after the other, each a promise. */
export class StoreDriver implements StateStorePort {
  readonly durable: Durable
  readonly #file: StateFile
  readonly #waiting: Waiting
  #seq = 0

  /** @throws with a sentence: no state, damaged, locked by another agent, on a file system that forgets. */
  static async open(stateDir: string): Promise<StoreDriver> {
    const waiting: Waiting = new Map()
    const opened = await openStateFile({
      folder: stateDir,
      now: bootMs,
      onPersisted: seq => {
        waiting.get(seq)?.resolve()
        waiting.delete(seq)
      },
      onFailed: (_seq, why) => {
        for (const { reject } of waiting.values()) reject(new Error(why))
        waiting.clear()
        failed = new Error(why)
      },
      ...stateWriter(),
    })
    let failed: Error | null = null
    if (!opened.ok) throw new Error(opened.why)
    return new StoreDriver({ ...opened, waiting, failure: () => failed })
  }

  readonly #failure: () => Error | null

  private constructor(opened: { file: StateFile; durable: Durable; waiting: Waiting; failure: () => Error | null }) {
    this.durable = opened.durable
    this.#file = opened.file
    this.#waiting = opened.waiting
    this.#failure = opened.failure
  }

  write(durable: Durable): Promise<void> {
    const failure = this.#failure()
    if (failure !== null) return Promise.reject(failure)
    const seq = ++this.#seq
    return new Promise((resolve, reject) => {
      this.#waiting.set(seq, { resolve, reject })
      this.#file.persist(seq, durable)
    })
  }

  close(): Promise<void> {
    return this.#file.close(closeLimitMs)
  }
}

type Waiting = Map<number, { resolve: () => void; reject: (error: Error) => void }>
