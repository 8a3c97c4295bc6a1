import { fileURLToPath } from 'node:url'
import { bundledChild } from '../self.ts'
import type { WorkerProgram } from './worker-process.ts'

/** The workers that are part of this agent; each is loaded in its own process only. */
export const workerPrograms: Readonly<Record<string, () => Promise<WorkerProgram>>> = {
  files: async () => new (await import('../files/worker.ts')).FilesWorker(),
  control: async () => new (await import('../control/worker.ts')).ControlWorker(),
}

/** How a worker of the registry is started: by this program's hidden verb, or by its file in development. `flags`: V8's. */
export function workerCommand(
  name: string,
  part: { memoryMb: number; flags?: readonly string[] },
): [string, ...string[]] {
  const flags = [`--max-old-space-size=${part.memoryMb}`, ...(part.flags ?? [])]
  const bundled = bundledChild('worker')
  if (bundled !== undefined) return [bundled.command, ...flags, ...bundled.args, name]
  const file = fileURLToPath(new URL('./worker-main.ts', import.meta.url))
  return [process.execPath, ...flags, '--disable-warning=ExperimentalWarning', file, name]
}
