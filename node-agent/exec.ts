import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { createInterface } from 'node:readline'

/** How a program ended; an operating error is one of these, never an exception. */
export type ExecResult =
  | { ok: true; stdout: string; stderr: string }
  | {
      ok: false
      why: string
      code: number | null
      /** It began and did not end by itself: what it was to do may be done. */
      killed: boolean
      stdout: string
      stderr: string
    }

export interface ExecOptions {
  /** It is killed then. */
  limitMs: number
  env?: Record<string, string>
  uid?: number
  gid?: number
  signal?: AbortSignal
  /** For one that answers in more than lines. */
  outputBytesMax?: number
  /**
   * `leave`: one that does not even end when it is killed, as in a driver that hangs, is not waited for; for what does no
   * harm when it goes on later. Otherwise it has ended when this has.
   */
  whenKilled?: 'await' | 'leave'
}

/** A program that prints more than this is killed: what we run answers in lines. */
const outputBytesMax = 4 * 1024 * 1024
/** Of an error output, what fits into a sentence. */
const stderrCharsMax = 400
/** A process that is killed has ended within milliseconds, unless it hangs in a driver. */
const endOfKilledMs = 1000

/** Runs a program without a shell. `argv[0]` is its path, or a name that PATH finds. */
export function exec(argv: readonly string[], options: ExecOptions): Promise<ExecResult> {
  const [file = '', ...args] = argv
  const { limitMs, env, uid, gid, signal, outputBytesMax: ownMax = outputBytesMax, whenKilled = 'await' } = options
  return new Promise(resolve => {
    let timer: NodeJS.Timeout | undefined
    const settings = {
      timeout: limitMs,
      killSignal: 'SIGKILL',
      maxBuffer: ownMax,
      env: env ?? process.env,
      ...(uid === undefined ? {} : { uid }),
      ...(gid === undefined ? {} : { gid }),
      ...(signal === undefined ? {} : { signal }),
    } as const
    const ended = (error: Failure | null, stdout: string, stderr: string): void => {
      clearTimeout(timer)
      if (error === null) return resolve({ ok: true, stdout, stderr })
      const code = typeof error.code === 'number' ? error.code : null
      const said = stderr.trim().slice(-stderrCharsMax)
      const why = `${file} ${outcome(error, limitMs)}${said === '' ? '' : `: ${said}`}`
      resolve({ ok: false, code, killed: wasKilled(error), stdout, stderr, why })
    }
    const child = begun(() => execFile(file, args, settings, ended))
    if (child instanceof Error) return ended(child, '', '')
    const leave = (): void => {
      child.unref()
      const why = `${file} was killed after ${limitMs} ms and does not end: it hangs in the kernel`
      resolve({ ok: false, code: null, killed: true, stdout: '', stderr: '', why })
    }
    // Its own time begins when the limit is noticed: whoever was stopped meanwhile looks at its end first.
    const noticed = (): void => {
      timer = setTimeout(leave, endOfKilledMs)
    }
    if (whenKilled === 'leave') timer = setTimeout(noticed, limitMs)
    // A program that ends without reading its input is no error of ours.
    child.stdin?.on('error', () => {})
    child.stdin?.end()
  })
}

/** Node throws most of what the kernel refuses at a start (no memory, too long an argument), and tells the rest later. */
function begun(begin: () => ChildProcess): ChildProcess | Error {
  try {
    return begin()
  } catch (error) {
    return error instanceof Error ? error : new Error(String(error))
  }
}

/** Debian's packages of the programs that a host may lack. */
const packages: { [program: string]: string } = {
  ip: 'iproute2',
  bridge: 'iproute2',
  iscsiadm: 'open-iscsi',
  'iscsi-ls': 'libiscsi-bin',
  multipathd: 'multipath-tools',
  openssl: 'openssl',
  'ovs-vsctl': 'openvswitch-switch',
  systemctl: 'systemd',
  udevadm: 'udev',
}

function missing(program: string): string {
  const found = packages[program]
  return `is not installed or not executable${found === undefined ? '' : ` (Debian: apt-get install ${found})`}`
}

type Failure = Error & { code?: unknown; killed?: boolean; signal?: unknown; path?: unknown }

const wasKilled = ({ killed, signal, code }: Failure): boolean =>
  killed === true || typeof signal === 'string' || code === 'ABORT_ERR' || code === 'ERR_CHILD_PROCESS_STDIO_MAXBUFFER'

function outcome(error: Failure, limitMs: number): string {
  if (error.code === 'ENOENT') return missing(String(error.path))
  if (error.code === 'ABORT_ERR') return 'was given up'
  if (error.killed === true) return `was killed after ${limitMs} ms`
  if (typeof error.code === 'number') return `ended with code ${error.code}`
  return typeof error.signal === 'string' ? `was killed by ${error.signal}` : error.message
}

export interface LinesOptions extends ExecOptions {
  /** Each line of the named output as it comes; what was not read yet is not kept. */
  onLine: (line: string) => void
  from: 'stdout' | 'stderr'
}

/** Like `exec` for a program that prints without end: its lines are handed on and not kept. */
export function execLines(argv: readonly string[], options: LinesOptions): Promise<ExecResult> {
  const [file = '', ...args] = argv
  const { limitMs, env, uid, gid, signal, onLine, from } = options
  return new Promise(resolve => {
    const settings = {
      stdio: ['ignore', 'pipe', 'pipe'],
      timeout: limitMs,
      killSignal: 'SIGKILL',
      env: env ?? process.env,
      ...(uid === undefined ? {} : { uid }),
      ...(gid === undefined ? {} : { gid }),
      ...(signal === undefined ? {} : { signal }),
    } as const
    const child = begun(() => spawn(file, args, { ...settings, stdio: [...settings.stdio] }))
    if (child instanceof Error) {
      const why = `${file} ${outcome(child, limitMs)}`
      return resolve({ ok: false, code: null, killed: false, stdout: '', stderr: '', why })
    }
    let stderr = ''
    let failed: (Error & { code?: unknown }) | null = null
    child.once('error', error => {
      failed = error
    })
    // Without a descriptor left there are none.
    child.stderr?.setEncoding('utf8')
    child.stderr?.on('data', (text: string) => {
      stderr = (stderr + text).slice(-stderrKeptChars)
    })
    const heard = from === 'stdout' ? child.stdout : child.stderr
    if (heard) createInterface({ input: heard }).on('line', onLine)
    if (from === 'stderr') child.stdout?.resume()
    child.once('close', (code, killedBy) => {
      if (failed === null && code === 0) return resolve({ ok: true, stdout: '', stderr })
      const error = Object.assign(failed ?? new Error(''), {
        ...(failed === null && { code: code ?? undefined, signal: killedBy, killed: child.killed }),
      })
      const said = stderr.trim().slice(-stderrCharsMax)
      const why = `${file} ${outcome(error, limitMs)}${said === '' ? '' : `: ${said}`}`
      resolve({ ok: false, code, killed: wasKilled(error), stdout: '', stderr, why })
    })
  })
}
/** Enough for the last error of a program that tells its progress there. */
const stderrKeptChars = 16 * 1024
