/** What the core has to know of a worker to run it. */
export interface WorkerDefinition {
  name: string
  /** The program and its arguments; no shell. */
  command: readonly [string, ...string[]]
  /** Added to a minimal environment. No secrets: /proc shows it to root's other programs and to crash reports. */
  env?: Readonly<Record<string, string>>
  /** Whom it runs as; absent: the agent's own user. */
  user?: { uid: number; gid: number }
  /** Resident memory, in MiB: beyond it the worker is killed and started again. */
  memoryMb: number
  /** A worker that has not answered for this long hangs and is killed; absent: `hangLimitMs`. */
  hangLimitMs?: number
  /** What the worker may ask of the core. The answer is JSON; a thrown error's message is the refusal. */
  answers?: Readonly<Record<string, (body: unknown) => unknown>>
  /** What the worker tells unasked, beside its report. */
  told?: (topic: string, body: unknown) => void
}

/** Nice value of every worker: the core's own is 0 or better. */
export const workerNice = 10
/** Workers are what the kernel should kill first when memory runs out; the core is spared (oom_score_adj, proc(5)). */
export const workerOomScore = 500
/** The core asks each worker whether it lives. A starved machine may take seconds to let one answer. */
export const aliveEveryMs = 2_000
export const hangLimitMs = 15_000
/** Node and its modules; a starved machine takes long. */
export const startLimitMs = 30_000
/** After a polite word; then it is killed. */
export const stopLimitMs = 2_000

/** The first restart is quick, since most deaths are single; a program that can't run must not eat the machine. */
export const backoffFirstMs = 200
export const backoffMaxMs = 30_000
/** After so long without a death the back-off begins anew. */
export const healthyAfterMs = 60_000

/** Published by the core: where this host stands (role, epoch, …), as of the last 100 ms. */
export const standingTopic = 'standing'
/** The topic under which a worker tells what `status` shows of it. */
export const reportTopic = 'report'
/** What `status` shows of a worker fits on a screen. */
export const reportBytesMax = 16 * 1024
