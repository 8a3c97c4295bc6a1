import * as contract from '../../shared/contract/api/organisations.ts'
import { asMember } from '../auth/caller.ts'
import type { Transaction } from '../db/client.ts'
import { acrossOrganisations } from '../db/transaction.ts'
import type { Api } from '../http/api.ts'
import { type Call, etagOf, type Result } from '../http/call.ts'
import { keepAnswer, keptAnswer, mutate } from '../http/mutate.ts'
import { reading } from '../http/read.ts'
import {
  createOrganisation,
  listOrganisations,
  organisationView,
  readmitAdministrator,
  readOrganisation,
  renameOrganisation,
} from '../services/organisation/organisations.ts'
import { recordAudit } from '../services/record/audit.ts'
import { createToken, listTokens, revokeToken, tokenView } from '../services/token/tokens.ts'

/** Keys of whoever runs this control plane are apart from those of every organisation. */
const instanceOwner = 'instance'

type GivesToken = typeof contract.createOrganisation | typeof contract.createAdministratorToken

/** A change by whoever runs this control plane, which gives a token and stands in the audit of its organisation. */
function ofInstance(
  call: Call,
  work: (tx: Transaction, now: Date) => ReturnType<typeof createOrganisation>,
): Promise<Result<GivesToken>> {
  const { deps, route, caller } = call
  const now = deps.now()
  return acrossOrganisations(deps.database, async tx => {
    const kept = await keptAnswer(tx, call, instanceOwner)
    if (kept !== null) return kept as Result<GivesToken>
    const { row, token } = await work(tx, now)
    const result = { body: { organisation: organisationView(row), token } }
    await keepAnswer(tx, call, { owner: instanceOwner, result, secret: true })
    const actor = 'subject' in caller ? caller.subject : ''
    const resource = `organisation ${row.id}`
    await recordAudit(tx, row.id, { at: now, actor, action: route.id, resource, outcome: 'done' })
    return result
  })
}

export function organisationRoutes(api: Api): void {
  api.implement(contract.createOrganisation, call =>
    ofInstance(call, (tx, now) => createOrganisation(tx, { name: call.body.name, now })),
  )

  api.implement(contract.createAdministratorToken, call =>
    ofInstance(call, (tx, now) => readmitAdministrator(tx, { id: call.params.organisation, now })),
  )

  api.implement(contract.listOrganisations, async call => ({
    body: await acrossOrganisations(call.deps.database, tx =>
      listOrganisations(tx, { limit: call.query.limit, cursor: call.query.cursor }),
    ),
  }))

  api.implement(contract.getOrganisation, async call => {
    const row = await reading(call, (tx, { organisation }) => readOrganisation(tx, organisation))
    return { body: organisationView(row), headers: { etag: etagOf(row.version) } }
  })

  api.implement(contract.renameOrganisation, call =>
    mutate(call, async tx => {
      const { organisation: id } = asMember(call.caller)
      const row = await renameOrganisation(tx, { id, name: call.body.name, version: call.ifMatch! })
      return {
        body: organisationView(row),
        headers: { etag: etagOf(row.version) },
        resource: `organisation ${id}`,
        details: call.body,
      }
    }),
  )

  api.implement(contract.createToken, call =>
    mutate(call, async tx => {
      const by = asMember(call.caller)
      const { row, token } = await createToken(tx, { wanted: call.body, by, now: call.deps.now() })
      return { body: { token, record: tokenView(row) }, secret: true, resource: `token ${row.id}`, details: call.body }
    }),
  )

  api.implement(contract.listTokens, async call => ({
    body: await reading(call, (tx, member) =>
      listTokens(tx, { member, limit: call.query.limit, cursor: call.query.cursor }),
    ),
  }))

  api.implement(contract.revokeToken, call =>
    mutate(call, async tx => {
      const member = asMember(call.caller)
      const row = await revokeToken(tx, { member, id: call.params.token, now: call.deps.now() })
      return { body: tokenView(row), resource: `token ${row.id}` }
    }),
  )

  api.implement(contract.getPermissions, async ({ caller }) => {
    if (caller.kind !== 'member') {
      const subject = caller.kind === 'nobody' ? '' : caller.subject
      return { body: { subject, organisation: null, role: null, permissions: [], pairs: null } }
    }
    const { subject, organisation, role, permissions, pairs } = caller
    return {
      body: { subject, organisation, role, permissions: [...permissions], pairs: pairs === null ? null : [...pairs] },
    }
  })
}
