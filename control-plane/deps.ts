import type { DocumentSigner } from '../shared/contract/signing.ts'
import type { AuthoritySecrets } from './auth/x509.ts'
import type { Publisher } from './broker/publisher.ts'
import type { Database } from './db/client.ts'

/** Everything the application uses of its surroundings. An entry builds it from the environment, and does nothing else. */
export interface Deps {
  database: Database
  publisher: Publisher
  /** Signs desired documents, their freshness, and commands. */
  signer: DocumentSigner
  trust: {
    /** The trust document, signed by the root. */
    document: string
    rootFingerprint: string
  }
  /** Issues the broker's client certificates; null: somebody else does. */
  authority: AuthoritySecrets | null
  /** Of which each host's key for its heartbeats is made. */
  heartbeatSecret: Uint8Array
  identityProviders: readonly IdentityProvider[]
  /** Where this API is reached, without a slash at its end: goes into enrolment tokens. */
  publicUrl: string
  /** Where hosts ask the hosted witness, over TLS; null: nowhere. */
  witness: WitnessPlace | null
  /** Where agents reach the broker; null: they use HTTPS alone. */
  brokerUrl: string | null
  limits: Limits
  /** Servers of its own that this instance keeps running. */
  children: () => readonly ChildHealth[]
  /** What hosts say is taken since then: a silence that is older says nothing about them. */
  hearingSince: Date
  now: () => Date
  /** Work that may outlive the answer: on Workers the runtime is told to wait for it. */
  later: (work: Promise<unknown>) => void
  log: (line: LogLine) => void
  /** Of the caller, for limits before anything is known of him; '' when the runtime does not say. */
  clientAddress: (request: Request) => string
}

export interface WitnessPlace {
  /** Of the API, without a slash at its end. */
  url: string
  /** SHA-256 of the certificate, hex, where no public authority vouches for it. */
  fingerprint: string | null
}

/** An API that is reached by https has its votes beside everything else. */
export const publicWitness = (publicUrl: string): WitnessPlace | null =>
  publicUrl.startsWith('https://') ? { url: publicUrl, fingerprint: null } : null

export interface ChildHealth {
  name: 'postgres' | 'mosquitto'
  running: boolean
  /** Since this instance began. */
  restarts: number
}

export interface LogLine {
  level: 'info' | 'warning' | 'error'
  message: string
  requestId?: string
}

/** An OpenID Connect issuer whose tokens are accepted as bearer tokens. */
export interface IdentityProvider {
  issuer: string
  audience: string
  jwksUrl: string
  /** Those it speaks for; absent: whichever its tokens name, so it is one of whoever runs this control plane. */
  organisations?: readonly string[] | undefined
  /** The claim that names the organisation, by its id. */
  organisationClaim: string
  /** The claim that holds a role, or a list in which the highest counts. */
  roleClaim: string
}

export interface Limits {
  /** Requests a second, and at once, for each token, and for each person of an identity provider. */
  perToken: Rate
  /** For each address, what shows no valid credential. */
  perAddress: Rate
  /** For each enrolled host, over HTTPS; a body of more than 16 KiB counts for each further 16. */
  perHost: Rate
  /** Changes of one organisation, whoever of it makes them: what each leaves in the audit is never taken away. */
  perOrganisation: Rate
}
export interface Rate {
  perSecond: number
  burst: number
}

export const defaultLimits: Limits = {
  /** A portal's page loads some ten resources at once; a script may poll. */
  perToken: { perSecond: 100, burst: 400 },
  /** Guessing costs 2^256 tries either way; this only keeps the database free for others. Many hosts share a NAT. */
  perAddress: { perSecond: 50, burst: 200 },
  /** An agent pulls each two seconds where there is no broker; back after days it empties its spool and tells its answers. */
  perHost: { perSecond: 20, burst: 200 },
  /** Ten thousand hosts enrolled and set up on one day, and each pair of them switched over every night. */
  perOrganisation: { perSecond: 2, burst: 20_000 },
}
