import { sql } from 'drizzle-orm'
import * as contract from '../../shared/contract/api/public.ts'
import type { Api } from '../http/api.ts'
import { Refusal } from '../http/problem.ts'

export function publicRoutes(api: Api): void {
  api.implement(contract.health, async call => ({ body: { ok: true as const, children: [...call.deps.children()] } }))

  api.implement(contract.ready, async call => {
    await call.deps.database.execute(sql`select 1`).catch(() => {
      throw new Refusal('busy', 'the database does not answer')
    })
    return { body: { ok: true as const } }
  })
}
