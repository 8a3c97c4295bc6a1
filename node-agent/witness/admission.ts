import type { z } from 'zod'
import {
  type AdmitReply,
  type AdmitRequest,
  admitReply,
  headerHost,
  headerSignature,
  type KeysQuestion,
  type KeysRequest,
  type ListReply,
  listReply,
  type RetireRequest,
  refusalReply,
  retireReply,
  type VoteReply,
  voteReply,
  witnessPath,
} from '../../shared/contract/witness.ts'
import type { DataNode, RegisterRequest } from '../../shared/protocol/types.ts'
import { type SigningKey, signRequest } from '../../shared/signing.ts'
import {
  type ExchangeResult,
  isUnknownKey,
  LastAddresses,
  type WitnessAddress,
  WitnessConnection,
} from './connection.ts'

/** The rare verbs, for the CLI and the agent's set-up: each opens a connection of its own. */
export interface WitnessCaller {
  address: WitnessAddress
  pair: string
  host: DataNode
  signingKey: SigningKey
  /** By which the witness may know this host as well, while its key is changed. */
  otherKeys?: () => Promise<readonly SigningKey[]>
}
/** `present`: the incarnation in force, where an admission named another one as the one it replaces. */
export type CallResult<Reply> = { ok: true; reply: Reply } | { ok: false; why: string; present?: string }

const callLimitMs = 10_000

/** `enrolmentToken`: needed while the witness does not know the pair. The same nonce may be sent again safely. */
export function admitPair(
  caller: WitnessCaller,
  part: { request: AdmitRequest; enrolmentToken: string | null },
): Promise<CallResult<AdmitReply>> {
  const token = part.enrolmentToken
  return call(caller, { path: witnessPath.admit(caller.pair), body: part.request, token, schema: admitReply })
}

/** One request to the acceptor, by a connection of its own. */
export const askOnce = (caller: WitnessCaller, request: RegisterRequest): Promise<CallResult<VoteReply>> =>
  call(caller, { path: witnessPath.vote(caller.pair), body: request, token: null, schema: voteReply })

export const changeHostKeys = (caller: WitnessCaller, request: KeysRequest): Promise<CallResult<AdmitReply>> =>
  call(caller, { path: witnessPath.keys(caller.pair), body: request, token: null, schema: admitReply })

/** By which keys, and in which generation of them, the witness knows this pair. */
export const presentKeys = (caller: WitnessCaller): Promise<CallResult<AdmitReply>> =>
  call(caller, {
    path: witnessPath.keys(caller.pair),
    body: { ask: 'present' } satisfies KeysQuestion,
    token: null,
    schema: admitReply,
  })

export const retirePair = (caller: WitnessCaller, request: RetireRequest): Promise<CallResult<{ retired: string }>> =>
  call(caller, { path: witnessPath.retire(caller.pair), body: request, token: null, schema: retireReply })

async function call<Reply>(
  caller: WitnessCaller,
  part: { path: string; body: object; token: string | null; schema: z.ZodType<Reply> },
): Promise<CallResult<Reply>> {
  const first = await exchange(caller, { ...part, signingKey: caller.signingKey })
  if (!isUnknownKey(first)) return readReply(first, part.schema)
  for (const signingKey of (await caller.otherKeys?.()) ?? []) {
    const result = await exchange(caller, { ...part, signingKey })
    if (!isUnknownKey(result)) return readReply(result, part.schema)
  }
  return readReply(first, part.schema)
}

async function exchange(
  { address, host }: WitnessCaller,
  part: { path: string; body: object; token: string | null; signingKey: SigningKey },
): Promise<ExchangeResult> {
  const body = Buffer.from(JSON.stringify(part.body))
  const signature = await signRequest(part.signingKey, { host, method: 'POST', path: part.path, body })
  const headers = {
    'content-type': 'application/json',
    [headerHost]: host,
    [headerSignature]: signature,
    ...bearer(part.token),
  }
  return once(address, { method: 'POST', path: part.path, headers, body })
}

/** For the witness' operator. */
export async function listPairs(address: WitnessAddress, operatorToken: string): Promise<CallResult<ListReply>> {
  const headers = bearer(operatorToken)
  const result = await once(address, { method: 'GET', path: witnessPath.list, headers, body: null })
  return readReply(result, listReply)
}

export async function retireAsOperator(
  address: WitnessAddress,
  part: { pair: string; inc: string; operatorToken: string },
): Promise<CallResult<{ retired: string }>> {
  const body = Buffer.from(JSON.stringify({ inc: part.inc }))
  const path = witnessPath.retire(part.pair)
  const result = await once(address, { method: 'POST', path, headers: bearer(part.operatorToken), body })
  return readReply(result, retireReply)
}

function once(
  address: WitnessAddress,
  part: { method: 'GET' | 'POST'; path: string; headers: { [name: string]: string }; body: Buffer | null },
): Promise<ExchangeResult> {
  const connection = new WitnessConnection(address, new LastAddresses())
  return new Promise(resolve => {
    connection.exchange({ ...part, limitMs: callLimitMs }, result => {
      connection.close()
      resolve(result)
    })
  })
}

function readReply<Reply>(result: ExchangeResult, schema: z.ZodType<Reply>): CallResult<Reply> {
  if (!result.ok) return result
  let json: unknown = null
  try {
    json = JSON.parse(result.body.toString())
  } catch {
    // Said below.
  }
  if (result.status === 200) {
    const parsed = schema.safeParse(json)
    if (parsed.success) return { ok: true, reply: parsed.data }
  }
  const refusal = refusalReply.safeParse(json)
  const why = refusal.success ? refusal.data.why : 'no answer of a witness'
  const present = refusal.success ? refusal.data.present : undefined
  return { ok: false, why: `${why} (status ${result.status})`, ...(present !== undefined && { present }) }
}

const bearer = (token: string | null): { [name: string]: string } =>
  token === null ? {} : { authorization: `Bearer ${token}` }
