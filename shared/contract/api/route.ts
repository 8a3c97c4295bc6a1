import { z } from 'zod'
import type { Permission } from './permissions.ts'

/**
 * One route of the HTTP API as data: the server registers it, the OpenAPI document describes it, the typed client calls
 * it, and the table of permissions is this very field, which the compiler demands.
 */
export interface Route<
  Params extends z.ZodType = z.ZodType,
  Query extends z.ZodType = z.ZodType,
  Body extends z.ZodType = z.ZodType,
  Reply extends z.ZodType = z.ZodType,
> {
  /** The operationId: a verb phrase in camel case, unique. */
  id: string
  method: 'get' | 'post' | 'put' | 'patch' | 'delete'
  /** With parameters in braces. */
  path: `/${string}`
  tag: string
  summary: string
  /**
   * Who may call it. `public`: anybody; `authenticated`: every valid credential of a person or tool;
   * `host`: an enrolled host by its signature; `pair host`: a host by the key its pair's witness knows;
   * `instance`: who runs this control plane.
   */
  access: Permission | 'public' | 'authenticated' | 'host' | 'pair host' | 'instance'
  params: Params
  query: Query
  /** z.undefined() where there is none. */
  body: Body
  reply: Reply
  /** Of the expected outcome. Refusals are problem documents everywhere. */
  status: 200 | 201 | 202 | 204
  /** POST that acts: an Idempotency-Key is required, and the same key answers the same. */
  acts: boolean
  /** Of the body, where the usual limit is too small. */
  bodyBytesMax?: number
  /** Changes something that is there: If-Match is required (428) and must be current (412). */
  conditional: boolean
}

type Part<Params extends z.ZodType, Query extends z.ZodType, Body extends z.ZodType, Reply extends z.ZodType> = Pick<
  Route<Params, Query, Body, Reply>,
  'id' | 'method' | 'path' | 'tag' | 'summary' | 'access' | 'reply'
> &
  Partial<
    Pick<
      Route<Params, Query, Body, Reply>,
      'params' | 'query' | 'body' | 'status' | 'acts' | 'bodyBytesMax' | 'conditional'
    >
  >

const none = z.strictObject({})
export const noBody = z.undefined()

export function route<
  Reply extends z.ZodType,
  Params extends z.ZodType = typeof none,
  Query extends z.ZodType = typeof none,
  Body extends z.ZodType = typeof noBody,
>(part: Part<Params, Query, Body, Reply>): Route<Params, Query, Body, Reply> {
  return {
    params: none as unknown as Params,
    query: none as unknown as Query,
    body: noBody as unknown as Body,
    status: 200,
    acts: false,
    conditional: false,
    ...part,
  }
}
