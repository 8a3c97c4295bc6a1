import { after, before } from 'node:test'
import type { Runtime } from '../support/runtime.ts'
import { crossingTests } from './crossings.ts'
import { endingTests } from './ending.ts'
import { eventTests } from './events.ts'
import { hostTabTests } from './host-tabs.ts'
import { hostTests } from './hosts.ts'
import { isolationTests } from './isolation.ts'
import { pairOperationTests } from './pair-operations.ts'
import { pairTests } from './pairs.ts'
import { publishingTests } from './publishing.ts'
import { requestTests } from './requests.ts'
import { tenancyTests } from './tenancy.ts'
import { toolKeyTests } from './tool-keys.ts'
import { typedClientTests } from './typed-client.ts'
import { witnessTests } from './witness.ts'

/** What the API promises, in whichever runtime: the same tests over the same database. */
export function contractSuite(start: () => Promise<Runtime>): void {
  let running: Runtime | null = null
  const runtime = (): Runtime => {
    if (running === null) throw new Error('the control plane is not running')
    return running
  }
  before(async () => {
    running = await start()
  })
  after(async () => {
    await running?.close()
  })
  tenancyTests(runtime)
  hostTests(runtime)
  pairTests(runtime)
  pairOperationTests(runtime)
  endingTests(runtime)
  crossingTests(runtime)
  isolationTests(runtime)
  eventTests(runtime)
  witnessTests(runtime)
  toolKeyTests(runtime)
  hostTabTests(runtime)
  publishingTests(runtime)
  requestTests(runtime)
  typedClientTests(runtime)
}
