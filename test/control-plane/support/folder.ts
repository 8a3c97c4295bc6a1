import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

/** A folder of this test process, gone with it. */
export function temporaryFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), 'understudy-test-'))
  process.once('exit', () => rmSync(folder, { recursive: true, force: true }))
  return folder
}
process.setMaxListeners(1000)
