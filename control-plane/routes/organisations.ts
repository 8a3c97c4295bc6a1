import * as contract from '../../shared/contract/api/organisations.ts'
import { asMember } from '../auth/caller.ts'
import { acrossOrganisations } from '../db/transaction.ts'
import type { Api } from '../http/api.ts'
import { etagOf } from '../http/call.ts'
import { keepAnswer, keptAnswer, mutate } from '../http/mutate.ts'
import { reading } from '../http/read.ts'
import {
  createOrganisation,
  organisationView,
  readOrganisation,
  renameOrganisation,
} from '../services/organisation/organisations.ts'
import { recordAudit } from '../services/record/audit.ts'
import { createToken, listTokens, revokeToken, tokenView } from '../services/token/tokens.ts'

/** Keys of whoever runs this control plane are apart from those of every organisation. */
const instanceOwner = 'instance'

export function organisationRoutes(api: Api): void {
  api.implement(contract.createOrganisation, async call => {
    const now = call.deps.now()
    return acrossOrganisations(call.deps.database, async tx => {
      const kept = await keptAnswer(tx, call, instanceOwner)
      if (kept !== null) return kept
      const { row, token } = await createOrganisation(tx, { name: call.body.name, now })
      const result = { body: { organisation: organisationView(row), token } }
      await keepAnswer(tx, call, { owner: instanceOwner, result, secret: true })
      const actor = 'subject' in call.caller ? call.caller.subject : ''
      await recordAudit(tx, row.id, {
        at: now,
        actor,
        action: call.route.id,
        resource: `organisation ${row.id}`,
        outcome: 'done',
      })
      return result
    })
  })

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
