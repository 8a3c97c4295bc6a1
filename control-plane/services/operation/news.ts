/**
 * Requests that wait for an operation are told at once of what happens to it in this process. A hint and nothing more: who
 * waits looks at the row, and where the news came in at another instance he finds it by looking, a little later.
 */
const waiting = new Map<string, Set<() => void>>()

/** Something happened to the operation, and is committed. */
export function tellNews(operation: string): void {
  for (const wake of waiting.get(operation) ?? []) wake()
}

/** Begins to listen: what comes from now on wakes whoever waits, also if it comes before he does. */
export function listenFor(operation: string): { news: () => Promise<void>; end: () => void } {
  let { promise, resolve } = Promise.withResolvers<void>()
  const wake = (): void => resolve()
  const others = waiting.get(operation) ?? new Set()
  waiting.set(operation, others.add(wake))
  return {
    news: async () => {
      await promise
      ;({ promise, resolve } = Promise.withResolvers<void>())
    },
    end: () => {
      others.delete(wake)
      if (others.size === 0 && waiting.get(operation) === others) waiting.delete(operation)
    },
  }
}
