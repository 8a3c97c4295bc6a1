import type { z } from 'zod'
import type { Route } from '../../shared/contract/api/route.ts'
import type { Caller } from '../auth/caller.ts'
import type { Deps } from '../deps.ts'

/** One request of a route, checked: what a handler gets. */
export interface Call<R extends Route = Route> {
  route: R
  params: z.output<R['params']>
  query: z.output<R['query']>
  body: z.output<R['body']>
  /** As it came, for signatures. */
  bytes: Uint8Array
  deps: Deps
  caller: Caller
  requestId: string
  /** The version that If-Match names; null where the route wants none. */
  ifMatch: number | null
  /** Subject and key, with what the request was. */
  idempotency: { key: string; fingerprint: string } | null
  /** Seconds that the caller is ready to wait for an operation; 0: not at all. */
  waitSeconds: number
  request: Request
}

export interface Result<R extends Route = Route> {
  status?: number
  body?: z.input<R['reply']> | undefined
  headers?: Record<string, string>
}

export type Handler<R extends Route> = (call: Call<R>) => Promise<Result<R>>

export const etagOf = (version: number): string => `"v${version}"`
/** null: it is none of ours. */
export function versionOf(etag: string): number | null {
  const match = /^(?:W\/)?"v(\d{1,9})"$/.exec(etag.trim())
  return match === null ? null : Number(match[1])
}
