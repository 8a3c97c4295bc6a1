import type { z } from 'zod'
import { type Answer, type CallOptions, type Given, Requester } from '../../../shared/contract/api/requester.ts'
import type { Route } from '../../../shared/contract/api/route.ts'

/**
 * A client typed by the table of routes itself: for tests of the contract, which name a route. Programs use the one that is
 * generated from the API's document (`control-plane/client`).
 */
export { ApiProblem, targetOf } from '../../../shared/contract/api/requester.ts'

type Part<Schema extends z.ZodType, Name extends string> =
  undefined extends z.input<Schema>
    ? { [key in Name]?: z.input<Schema> }
    : Record<string, never> extends z.input<Schema>
      ? { [key in Name]?: z.input<Schema> }
      : { [key in Name]: z.input<Schema> }
export type CallInput<R extends Route> = Part<R['params'], 'params'> &
  Part<R['query'], 'query'> &
  Part<R['body'], 'body'>

export class ApiClient extends Requester {
  /** @throws ApiProblem for every answer that is no success. */
  call<R extends Route>(route: R, input: CallInput<R> & CallOptions): Promise<Answer<z.output<R['reply']>>> {
    const requested = { method: route.method.toUpperCase(), path: route.path, acts: route.acts }
    return this.request(requested, input as Given)
  }
}
