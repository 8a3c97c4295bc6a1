import { bootstrap } from '../entry/bootstrap.ts'
import { openDatabase } from './client.ts'
import { migrateDatabase } from './migrate.ts'

/** `DATABASE_URL=… node control-plane/db/main.ts`: tables, and the first tokens, for runtimes that have no disk to start from. */
const url = process.env.DATABASE_URL
if (url === undefined) throw new Error('DATABASE_URL is missing: the address of the PostgreSQL database')
const exempt = await migrateDatabase(url)
if (exempt !== null) process.stderr.write(`warning: ${exempt}\n`)
const { database, close } = openDatabase({ url, max: 1 })
try {
  const tokens = await bootstrap(database, new Date())
  process.stdout.write(tokens === null ? 'the tables are up to date\n' : `${JSON.stringify(tokens)}\n`)
} finally {
  await close()
}
