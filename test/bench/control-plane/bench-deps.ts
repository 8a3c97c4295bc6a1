import { type SigningSecrets, signingDeps } from '../../../control-plane/auth/signing-keys.ts'
import { noBroker, type Publisher } from '../../../control-plane/broker/publisher.ts'
import { openDatabase } from '../../../control-plane/db/client.ts'
import { type Deps, defaultLimits } from '../../../control-plane/deps.ts'

/** What services use of their surroundings, over the benchmark's database. */
export async function benchDeps(
  { databaseUrl, secrets }: { databaseUrl: string; secrets: SigningSecrets },
  { publisher = noBroker, connections = 10 }: { publisher?: Publisher; connections?: number } = {},
): Promise<{ deps: Deps; close: () => Promise<void> }> {
  const { database, close } = openDatabase({ url: databaseUrl, max: connections })
  const deps: Deps = {
    database,
    publisher,
    ...(await signingDeps(secrets)),
    authority: null,
    identityProviders: [],
    publicUrl: '',
    witness: null,
    brokerUrl: null,
    limits: defaultLimits,
    children: () => [],
    hearingSince: new Date(0),
    now: () => new Date(),
    later: work => void work.catch(() => {}),
    log: ({ level, message }) => {
      process.stderr.write(`${level}: ${message}\n`)
    },
    clientAddress: () => '',
  }
  return { deps, close }
}
