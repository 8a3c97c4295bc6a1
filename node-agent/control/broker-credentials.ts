import { generateKeyPairSync } from 'node:crypto'
import { z } from 'zod'
import { readSecret, writeSecret } from '../keys/secret-file.ts'
import type { Cloud } from './cloud.ts'

/** Key and certificate by which this host enters the broker. Short-lived; asked for by the key of the enrolment. */
const schema = z.object({
  v: z.literal(1),
  keyPem: z.string(),
  certificate: z.string(),
  authority: z.string(),
  startsAt: z.iso.datetime(),
  endsAt: z.iso.datetime(),
})
export type BrokerCredentials = z.output<typeof schema>

/** Renewed when half of its time is over: the other half is for a control plane that is away. */
export function isDue({ startsAt, endsAt }: BrokerCredentials, nowMs: number): boolean {
  const [from, to] = [Date.parse(startsAt), Date.parse(endsAt)]
  return nowMs > from + (to - from) / 2 || nowMs < from - (to - from)
}

/** null: none yet, or none that can be read; it is simply asked for again. */
export function readCredentials(path: string): BrokerCredentials | null {
  try {
    const parsed = schema.safeParse(JSON.parse(readSecret(path)?.toString() ?? 'null'))
    return parsed.success ? parsed.data : null
  } catch {
    return null
  }
}

/** A key is made with each certificate and never leaves the host. */
export async function renewCredentials(
  path: string,
  { cloud, nowMs }: { cloud: Pick<Cloud, 'certificate'>; nowMs: number },
): Promise<{ ok: true; credentials: BrokerCredentials } | { ok: false; why: string }> {
  const { publicKey, privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const answer = await cloud.certificate(publicKey.export({ type: 'spki', format: 'der' }).toString('base64url'))
  if (!answer.ok) return answer
  const credentials: BrokerCredentials = {
    v: 1,
    keyPem: privateKey.export({ type: 'pkcs8', format: 'pem' }).toString(),
    certificate: answer.value.certificate,
    authority: answer.value.authority,
    startsAt: new Date(nowMs).toISOString(),
    endsAt: answer.value.endsAt,
  }
  await writeSecret(path, Buffer.from(JSON.stringify(credentials)))
  return { ok: true, credentials }
}
