import { parseArgs } from 'node:util'
import { ensureDebianPackages, unsuitable } from '../../infra/dev/debian-packages.ts'
import { torture } from './files-torture.ts'

/**
 * `npm run torture:files -- --seed N --minutes M`: the long form of what `npm test` does for some seconds. `--wide N`: with a
 * directory of N names among those that are changed.
 */
const { values } = parseArgs({
  options: {
    seed: { type: 'string', default: String(Date.now() % 1_000_000) },
    minutes: { type: 'string', default: '10' },
    writers: { type: 'string', default: '3' },
    wide: { type: 'string', default: '0' },
  },
})
const say = (line: string): void => {
  process.stderr.write(`${line}\n`)
}
const reason = unsuitable()
if (reason !== null) throw new Error(reason)
await ensureDebianPackages(['rsync', 'openssl'], { why: 'the torture of files', say })
const seed = Number(values.seed)
say(`seed ${seed}`)
const result = await torture({
  seed,
  durationMs: Number(values.minutes) * 60_000,
  writers: Number(values.writers),
  wideNames: Number(values.wide),
  say,
})
process.stdout.write(`${JSON.stringify({ seed, ...result })}\n`)
process.exit(result.differences === '' ? 0 : 1)
