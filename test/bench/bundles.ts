import { fileURLToPath } from 'node:url'
import { run } from '../../infra/lab/exec.ts'

const ROOT = fileURLToPath(new URL('../../', import.meta.url))

/**
 * Builds what users install and has the lab run it. Answers with a second one of another version, to upgrade to.
 */
export async function buildBundles(): Promise<string> {
  const build = [`${ROOT}infra/dev/build.ts`]
  const next = `${ROOT}dist/understudy-next.mjs`
  await run(process.execPath, build)
  await run(process.execPath, [...build, '--outfile', next, '--set-version', '0.0.0-next'])
  process.env.UNDERSTUDY_LAB_BUNDLE = '1'
  return next
}
