import * as contract from '../../shared/contract/api/tool-keys.ts'
import { brokerName } from '../../shared/contract/topics.ts'
import { asMember } from '../auth/caller.ts'
import type { Api } from '../http/api.ts'
import { mutate } from '../http/mutate.ts'
import { Refusal } from '../http/problem.ts'
import { reading } from '../http/read.ts'
import { brokerCertificate } from '../services/host/certificates.ts'
import { createToolKey, listToolKeys, revokeToolKey, toolKeyView } from '../services/token/tool-keys.ts'

export function toolKeyRoutes(api: Api): void {
  api.implement(contract.createToolKey, call =>
    mutate(call, async tx => {
      const row = await createToolKey(tx, call.deps, { wanted: call.body, by: asMember(call.caller) })
      return { body: toolKeyView(row), resource: `tool key ${row.id}`, details: call.body }
    }),
  )

  api.implement(contract.listToolKeys, async call => ({
    body: await reading(call, (tx, member) =>
      listToolKeys(tx, { member, limit: call.query.limit, cursor: call.query.cursor }),
    ),
  }))

  api.implement(contract.revokeToolKey, call =>
    mutate(call, async tx => {
      const member = asMember(call.caller)
      const row = await revokeToolKey(tx, call.deps, { id: call.params.toolKey, member })
      return { body: toolKeyView(row), resource: `tool key ${row.id}` }
    }),
  )

  api.implement(contract.toolCertificate, call =>
    mutate(call, async () => {
      const { organisation, pairs } = asMember(call.caller)
      if (pairs !== null)
        throw new Refusal(
          'forbidden',
          'this credential is limited to some pairs, and the broker knows the tooling of an organisation as one: ask with a credential for all of them',
        )
      const issued = await brokerCertificate(call.deps.authority, {
        name: brokerName.tooling({ organisation }),
        publicKey: call.body.publicKey,
        now: call.deps.now(),
      })
      return { body: { ...issued, broker: call.deps.brokerUrl }, resource: 'certificate of tooling' }
    }),
  )
}
