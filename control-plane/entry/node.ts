import { homedir } from 'node:os'
import { join } from 'node:path'
import { databaseUrlOf, identityProvidersOf, limitsOf, listenDefault, listenOf, publicUrlOf } from './environment.ts'
import { brokerOf } from './local/broker-access.ts'
import { isRoot } from './local/users.ts'
import { startControlPlane } from './node-server.ts'

/**
 * The control plane under Node. Nothing has to be configured: it brings its own PostgreSQL and Mosquitto. Settings come from the
 * environment, since some are secrets and arguments can be read by everybody on the machine.
 */
async function main(env: NodeJS.ProcessEnv): Promise<number> {
  const listen = listenOf(env.LISTEN || listenDefault)
  const dataDir =
    env.DATA_DIR ||
    (isRoot() ? '/var/lib/understudy-control-plane' : join(homedir(), '.local/state/understudy-control-plane'))
  const running = await startControlPlane({
    dataDir,
    listen,
    databaseUrl: env.DATABASE_URL ? databaseUrlOf(env.DATABASE_URL) : null,
    broker: brokerOf(env),
    publicUrl: env.PUBLIC_URL ? publicUrlOf(env.PUBLIC_URL) : null,
    identityProviders: identityProvidersOf(env.OIDC_PROVIDERS),
    limits: limitsOf(env.RATE_LIMIT_PER_SECOND || null),
    log: ({ level, message, requestId }) => {
      process.stderr.write(`${level}${requestId === undefined ? '' : ` ${requestId}`}: ${message}\n`)
    },
  })
  const { url, tokens } = running
  const { admin = null, instance = null } = tokens ?? {}
  const shownOnce = [
    ...(admin === null ? [] : [`token of the first administrator, shown this once: ${admin}\n`]),
    ...(instance === null ? [] : [`token of this instance (makes organisations), shown this once: ${instance}\n`]),
    ...(admin === null ? [] : [`try: curl -H 'authorization: Bearer ${admin}' ${url}/v1/me/permissions\n`]),
  ].join('')
  // In one piece: whoever reads it as it is written has all of it or nothing.
  process.stdout.write(`control plane at ${url}, its data in ${dataDir}\nthe API to browse: ${url}/docs\n${shownOnce}`)
  const end = new Promise<number>(resolve => {
    for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => resolve(0))
    void running.failed.then(why => {
      process.stderr.write(`${why}\n`)
      resolve(1)
    })
  })
  const code = await end
  await running.close()
  return code
}

main(process.env).then(
  code => process.exit(code),
  (error: unknown) => {
    process.stderr.write(`understudy control plane: ${error instanceof Error ? error.message : String(error)}\n`)
    process.exit(1)
  },
)
