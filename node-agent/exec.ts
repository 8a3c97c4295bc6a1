import { execFile } from 'node:child_process'

/** How a program ended; an operating error is one of these, never an exception. */
export type ExecResult =
  | { ok: true; stdout: string; stderr: string }
  | { ok: false; why: string; code: number | null; stdout: string; stderr: string }

export interface ExecOptions {
  /** It is killed then. */
  limitMs: number
  env?: Record<string, string>
  uid?: number
  gid?: number
  signal?: AbortSignal
}

/** A program that prints more than this is killed: what we run answers in lines. */
const outputBytesMax = 4 * 1024 * 1024
/** Of an error output, what fits into a sentence. */
const stderrCharsMax = 400

/** Runs a program without a shell. `argv[0]` is its path, or a name that PATH finds. */
export function exec(argv: readonly string[], options: ExecOptions): Promise<ExecResult> {
  const [file = '', ...args] = argv
  const { limitMs, env, uid, gid, signal } = options
  return new Promise(resolve => {
    const child = execFile(
      file,
      args,
      {
        timeout: limitMs,
        killSignal: 'SIGKILL',
        maxBuffer: outputBytesMax,
        env: env ?? process.env,
        ...(uid === undefined ? {} : { uid }),
        ...(gid === undefined ? {} : { gid }),
        ...(signal === undefined ? {} : { signal }),
      },
      (error, stdout, stderr) => {
        if (error === null) return resolve({ ok: true, stdout, stderr })
        const code = typeof error.code === 'number' ? error.code : null
        const said = stderr.trim().slice(-stderrCharsMax)
        resolve({
          ok: false,
          code,
          stdout,
          stderr,
          why: `${file} ${outcome(error, limitMs)}${said === '' ? '' : `: ${said}`}`,
        })
      },
    )
    // A program that ends without reading its input is no error of ours.
    child.stdin?.on('error', () => {})
    child.stdin?.end()
  })
}

function outcome(error: Error & { code?: unknown; killed?: boolean; signal?: unknown }, limitMs: number): string {
  if (error.code === 'ENOENT') return 'is not installed or not executable'
  if (error.code === 'ABORT_ERR') return 'was given up'
  if (error.killed === true) return `was killed after ${limitMs} ms`
  if (typeof error.code === 'number') return `ended with code ${error.code}`
  return typeof error.signal === 'string' ? `was killed by ${error.signal}` : error.message
}
