import { z } from 'zod'
import type { Config } from '../config.ts'
import type { ConfigFault } from '../config-faults.ts'
import { agreedSyncSchema, type HeldTree } from '../files/set-up-agreement.ts'

/**
 * What the second host needs to join: secrets (pair key, its own host key and certificate) and what both configurations
 * must agree on. It is as good as the pair's keys, so it travels in a file or a pipe, never as an argument.
 */
const path = z.strictObject({ local: z.string(), peer: z.string(), port: z.int() })
export const tokenSchema = z.strictObject({
  v: z.literal(1),
  pair: z.string(),
  node: z.enum(['a', 'b']),
  /** 32 bytes in base64url. */
  pairKey: z.string().regex(/^[\w-]{43}$/),
  hostKeyPem: z.string(),
  witness: z
    .strictObject({
      url: z.string(),
      fingerprint: z.string().nullable(),
      hosted: z.exactOptional(z.literal(true)),
      inc: z.string(),
    })
    .nullable(),
  tls: z.strictObject({ authorityPem: z.string(), keyPem: z.string(), certificatePem: z.string() }).nullable(),
  /**
   * What the joining host needs to have another machine join in the place of this one, should it be lost. `authorityKeyPem`:
   * null where certificates are the operator's own. Absent in tokens of before there was such a thing.
   */
  inviter: z.exactOptional(z.strictObject({ hostKeyPem: z.string(), authorityKeyPem: z.string().nullable() })),
  agreed: z.strictObject({
    profile: z.string(),
    /** As the joining host has to write them. */
    paths: z.array(path),
    vips: z.array(z.string()),
    protectedPorts: z.array(z.int()),
    postgresPort: z.int(),
    postgresMajor: z.int(),
    /** Absent in tokens of before there was such a thing; null: no trees. */
    sync: z.exactOptional(agreedSyncSchema.nullable()),
  }),
})
export type JoinToken = z.output<typeof tokenSchema>

/** Told from other texts at a glance, also in a log where it has no business. */
const prefix = 'understudy-join-1.'
/** A token has some kilobytes: three keys and certificates. */
export const tokenBytesMax = 64 * 1024

export const encodeToken = (token: JoinToken): string =>
  prefix + Buffer.from(JSON.stringify(token)).toString('base64url')

/** null: this is no token. */
export function decodeToken(text: string): JoinToken | null {
  const trimmed = text.trim()
  if (!trimmed.startsWith(prefix)) return null
  try {
    const parsed = tokenSchema.safeParse(JSON.parse(Buffer.from(trimmed.slice(prefix.length), 'base64url').toString()))
    return parsed.success ? parsed.data : null
  } catch {
    return null
  }
}

export function agreedOf(config: Config, postgresMajor: number, held: readonly HeldTree[]): JoinToken['agreed'] {
  return {
    profile: config.profile,
    paths: config.peer.paths.map(({ local, peer, port }) => ({ local: peer, peer: local, port })),
    vips: config.vips.map(vip => vip.address),
    protectedPorts: config.protectedPorts,
    postgresPort: config.postgres.port,
    postgresMajor,
    sync: config.sync === null ? null : { port: config.sync.port, trees: treesOf(config, held) },
  }
}

/** All of them, so that both hosts have the same; what one holds may not be known. */
const treesOf = ({ sync }: Config, held: readonly HeldTree[]): HeldTree[] =>
  (sync?.trees ?? []).map(
    ({ name }) => held.find(one => one.name === name) ?? { name, usedBytes: 0, partitionMb: null },
  )

/** Where the second host's configuration contradicts the first one's. */
export function disagreements(config: Config, token: JoinToken, postgresMajor: number): ConfigFault[] {
  const faults: ConfigFault[] = []
  const compare = (field: string, here: unknown, there: unknown): void => {
    if (JSON.stringify(here) === JSON.stringify(there)) return
    faults.push({
      field,
      value: here,
      rule: `differs from what the token says: ${JSON.stringify(there)}`,
      remedy: 'both hosts must agree: change this file or the other one',
    })
  }
  const sorted = (items: readonly unknown[]): unknown[] => items.map(item => JSON.stringify(item)).sort()
  const { agreed } = token
  compare('pair', config.pair, token.pair)
  compare('node', config.node, token.node)
  compare('profile', config.profile, agreed.profile)
  if (JSON.stringify(sorted(config.peer.paths)) !== JSON.stringify(sorted(agreed.paths))) {
    compare('peer.paths', config.peer.paths, agreed.paths)
  }
  compare('vips', sorted(config.vips.map(vip => vip.address)), sorted(agreed.vips))
  compare('protectedPorts', sorted(config.protectedPorts), sorted(agreed.protectedPorts))
  compare('postgres.port', config.postgres.port, agreed.postgresPort)
  compare('postgres.binDir', postgresMajor, agreed.postgresMajor)
  if (agreed.sync !== undefined) {
    compare('sync.port', config.sync?.port ?? null, agreed.sync?.port ?? null)
    const names = (trees: readonly { name: string }[] = []): unknown[] => sorted(trees.map(tree => tree.name))
    compare('sync.trees', names(config.sync?.trees), names(agreed.sync?.trees))
  }
  compare('witness.url', config.witness?.url ?? null, token.witness?.url ?? null)
  compare('witness.fingerprint', config.witness?.fingerprint ?? null, token.witness?.fingerprint ?? null)
  compare('witness.hosted', config.witness?.hosted ?? false, token.witness?.hosted ?? false)
  return faults
}
