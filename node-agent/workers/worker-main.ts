import { runNamedWorker } from './worker-process.ts'

/** A worker of the registry in a process of its own; in the bundle the hidden verb `worker` does the same. */
await runNamedWorker(process.argv[2] ?? '')
