import { serve } from '@hono/node-server'
import { and, eq } from 'drizzle-orm'
import { Hono } from 'hono'
import { callerOfBearer } from '../../../control-plane/auth/bearer.ts'
import { asMember } from '../../../control-plane/auth/caller.ts'
import { host } from '../../../control-plane/db/schema/index.ts'
import { inOrganisation } from '../../../control-plane/db/transaction.ts'
import { startControlPlane } from '../../../control-plane/entry/node-server.ts'
import { hostsSeenBy, readHosts } from '../../../control-plane/services/host/read-hosts.ts'

/**
 * A child of the benchmark: the control plane as its Node entry starts it, and beside it, in the same process, bare Hono
 * with the same token check, transaction and query, which is the floor.
 */
const [dataDir, databaseUrl] = process.argv.slice(2) as [string, string]
const unlimited = { perSecond: 1e6, burst: 1e6 }
const running = await startControlPlane({
  dataDir,
  listen: { address: '127.0.0.1', port: 0 },
  databaseUrl,
  broker: 'none',
  publicUrl: null,
  identityProviders: [],
  limits: { perToken: unlimited, perAddress: unlimited, perHost: unlimited, perOrganisation: unlimited },
  log: ({ level, message }) => {
    if (level === 'error') process.stderr.write(`${message}\n`)
  },
})
const { deps } = running
const bare = new Hono()
bare.get('/hosts/:host', async context => {
  const member = asMember(await callerOfBearer(deps, context.req.header('authorization') ?? ''))
  const [rows] = await inOrganisation(deps.database, member.organisation, tx =>
    readHosts(tx, { where: and(hostsSeenBy(member), eq(host.id, context.req.param('host'))), limit: 1 }),
  )
  return context.json(rows)
})
const floor = serve({ fetch: bare.fetch, hostname: '127.0.0.1', port: 0 }, info => {
  process.send?.({ url: running.url, bareUrl: `http://127.0.0.1:${info.port}` })
})

process.on('message', async message => {
  if (message === 'cpu') process.send?.(process.cpuUsage())
  if (message === 'end') {
    floor.close()
    await running.close()
    process.exit(0)
  }
})
