import type { z } from 'zod'
import type { setUpPair } from '../../../shared/contract/api/pairs.ts'
import { pairSettings } from '../../../shared/contract/api/settings.ts'
import { ulid } from '../../../shared/ids.ts'
import type { Member } from '../../auth/caller.ts'
import type { Transaction } from '../../db/client.ts'
import { pair } from '../../db/schema/index.ts'
import type { Deps } from '../../deps.ts'
import { invalid, isTaken, Refusal } from '../../http/problem.ts'
import { adoptPlan, setUpPlan } from '../../operations/plan.ts'
import { lockHost } from '../host/read-hosts.ts'
import type { OperationRow } from '../operation/operation-view.ts'
import { startOperation } from '../operation/start.ts'
import { knowContinued } from '../witness/members.ts'
import { issueDesired } from './issue-desired.ts'
import { measuredOf } from './measured.ts'
import { pairingOf } from './pairing.ts'
import { knownPrechecks } from './prechecks.ts'

type Wanted = z.output<typeof setUpPair.body>

/**
 * The pair, its desired documents and the operation that sets it up. What is known to stand in the way is refused before
 * anything is written; what only the hosts can measure is the operation's first step.
 */
export async function setUp(
  tx: Transaction,
  deps: Deps,
  { wanted, by }: { wanted: Wanted; by: Member },
): Promise<{ pairId: string; operation: OperationRow }> {
  if (by.pairs !== null)
    throw new Refusal('forbidden', 'this credential is limited to some pairs and cannot make another one')
  const { hosts: ids, primary, adopt } = wanted
  const settings = pairSettings.parse(wanted.settings)
  if (ids.a === ids.b)
    throw invalid(
      [{ field: 'body.hosts', message: 'a pair needs two hosts, and both ids are the same' }],
      'between_fields',
    )
  // In one order, so that two set-ups never wait for each other.
  const locked = new Map<string, Awaited<ReturnType<typeof lockHost>>>()
  for (const id of [ids.a, ids.b].sort()) locked.set(id, await lockHost(tx, { id, member: by }))
  const hosts = { a: locked.get(ids.a)!, b: locked.get(ids.b)! }
  for (const slot of ['a', 'b'] as const) {
    if (hosts[slot].host.state === 'retired') throw new Refusal('conflict', `host ${hosts[slot].host.name} is retired`)
  }
  const now = deps.now()
  const obstacles = knownPrechecks({ settings, hosts, pair: null, hostedWitness: deps.witness, now }).filter(
    one => one.severity === 'blocking',
  )
  if (obstacles.length > 0) {
    throw new Refusal('operation_refused', 'prechecks stand in the way; nothing was changed', {
      obstacles: obstacles.map(
        one => `${one.code}${one.host === null ? '' : ` (host ${one.host})`}: ${one.measured}; ${one.remedy}`,
      ),
    })
  }
  const [row] = await tx
    .insert(pair)
    .values({
      id: ulid(now.getTime()),
      organisation: by.organisation,
      name: wanted.name,
      state: 'set up wanted',
      hostA: ids.a,
      hostB: ids.b,
      first: primary,
      settings,
      generation: 1,
      createdAt: now,
    })
    .returning()
    .catch((error: unknown) => {
      if (isTaken(error, 'pair_name')) throw new Refusal('name_taken', `another pair has the name ${wanted.name}`)
      throw error
    })
  const keys = { a: hosts.a.host.publicKey, b: hosts.b.host.publicKey }
  await knowContinued(tx, { organisation: by.organisation, pair: wanted.name, keys })
  await issueDesired(tx, deps, { organisation: by.organisation, hosts: [ids.a, ids.b] })
  const rows = { pair: row!, hosts }
  const work = adopt ? adoptPlan() : setUpPlan(pairingOf(rows), { first: primary, measured: measuredOf(row!, deps) })
  const operation = await startOperation(tx, deps, {
    organisation: by.organisation,
    kind: 'setUp',
    pair: row!.id,
    work,
    actor: by.subject,
    reason: adopt ? 'adopted' : '',
  })
  return { pairId: row!.id, operation }
}
