/** What a run has started and made, so that nothing of it is left when it fails or is told to end. */
const undoings = new Set<() => unknown>()
let undone: Promise<void> | null = null

/** To be undone where the run ends before; the answer is for when it was undone in the run itself. */
export function undoneAtEnd(undo: () => unknown): () => void {
  undoings.add(undo)
  return () => undoings.delete(undo)
}

/** The last first: a process before the folder that it writes to. What is under way already is waited for. */
export function undoAll(say: (line: string) => void): Promise<void> {
  undone ??= (async () => {
    for (const undo of [...undoings].reverse()) {
      try {
        await undo()
      } catch (error) {
        say(String(error))
      }
    }
  })()
  return undone
}

/** By number, for the exit (bash(1), "Exit status"). */
const signals = { SIGHUP: 1, SIGINT: 2, SIGTERM: 15 } as const
/** Nobody waits for one that does not end. */
const limitMs = 20_000
let isTold = false

/** Whether this process was told to end: what fails then does so because of it. */
export const isInterrupted = (): boolean => isTold

export function watchForInterruption(say: (line: string) => void): void {
  for (const [signal, number] of Object.entries(signals)) {
    process.on(signal, () => {
      if (isTold) return
      isTold = true
      say(`${signal}: what was started is ended, and what was made removed`)
      const exit = (): never => process.exit(128 + number)
      setTimeout(exit, limitMs)
      void undoAll(say).then(exit)
    })
  }
}
