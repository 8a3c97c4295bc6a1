import { execFile } from 'node:child_process'
import { promisify } from 'node:util'

const run = promisify(execFile)
/** A key of the P-256 curve takes a few ms; this is for a machine without entropy. */
const limitMs = 30_000

/** Certificates are made by openssl(1): Node has no X.509 writer. Keys go through files of mode 0600, never through arguments. */
export async function openssl(args: string[]): Promise<string> {
  try {
    const { stdout } = await run('openssl', args, { timeout: limitMs, env: { PATH: process.env.PATH, LC_ALL: 'C' } })
    return stdout
  } catch (fault) {
    const { code, stderr } = fault as { code?: unknown; stderr?: string }
    if (code === 'ENOENT') throw new Error('openssl is missing: install it (Debian: apt-get install openssl)')
    throw new Error(`openssl ${args[0]} failed: ${stderr?.trim() || String(fault)}`)
  }
}
