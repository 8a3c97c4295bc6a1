import { and, asc, eq, gt } from 'drizzle-orm'
import { heartbeatKeyOf, heartbeatKeyPurpose } from '../../../shared/contract/heartbeat-mac.ts'
import { sha256Hex } from '../../../shared/contract/signing.ts'
import { seal } from '../../../shared/sealing.ts'
import type { Transaction } from '../../db/client.ts'
import { command, host, hostDesired } from '../../db/schema/index.ts'
import type { Deps } from '../../deps.ts'
import { freshDocument } from '../pair/issue-desired.ts'

/** With a broker this is the safety net; without one, the only way. */
const pollSeconds = { withBroker: 60, alone: 2 }
const commandsMax = 20

/** Everything the host would get from the broker, with an ETag over what matters of it; null: it has that already. */
export async function documentsFor(tx: Transaction, deps: Deps, part: { host: string; held: string | null }) {
  const id = part.host
  const [desired] = await tx.select().from(hostDesired).where(eq(hostDesired.host, id))
  const waiting = await tx
    .select({ jws: command.jws })
    .from(command)
    .where(and(eq(command.host, id), gt(command.expiresAt, deps.now()), eq(command.phase, '')))
    // The oldest first, and in one order: else the ETag is another one without anything new.
    .orderBy(asc(command.jti))
    .limit(commandsMax)
  const commands = waiting.map(row => row.jws)
  const heartbeatKey = heartbeatKeyOf(deps.heartbeatSecret, id)
  const identity = [
    heartbeatKey,
    desired?.sha256 ?? '',
    deps.trust.document,
    ...commands,
    Math.floor(deps.now().getTime() / freshEveryMs),
  ]
  const etag = `"${(await sha256Hex(identity.join('\n'))).slice(0, 32)}"`
  if (etag === part.held) return { etag, body: null }
  const [known] = await tx.select({ sealingKey: host.sealingKey }).from(host).where(eq(host.id, id))
  const fresh = await freshDocument(deps, {
    host: id,
    generation: desired?.generation ?? 0,
    sha256: desired?.sha256 ?? '',
  })
  return {
    etag,
    body: {
      trust: deps.trust.document,
      desired: desired?.jws ?? null,
      fresh,
      commands,
      pollAfterSeconds: deps.brokerUrl === null ? pollSeconds.alone : pollSeconds.withBroker,
      sealedHeartbeatKey: await seal(heartbeatKey, { to: known?.sealingKey ?? '', purpose: heartbeatKeyPurpose(id) }),
    },
  }
}

/** A host that polls gets a new word of freshness this often, and 304 between. */
const freshEveryMs = 10 * 60_000
