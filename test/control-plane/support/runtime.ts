import { chmodSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { defaultLimits, type Limits } from '../../../control-plane/deps.ts'
import { startControlPlane } from '../../../control-plane/entry/node-server.ts'
import { ApiClient } from '../../../shared/contract/api/client.ts'
import { createOrganisation } from '../../../shared/contract/api/organisations.ts'

/** A control plane in one of its runtimes, over a real PostgreSQL. */
export interface Runtime {
  url: string
  instanceToken: string
  adminUrl: string
  /** Of the role that the control plane connects as. */
  databaseUrl: string
  close: () => Promise<void>
}

/** Tests ask more in a second than any person. */
const testLimits: Limits = {
  ...defaultLimits,
  perAddress: { perSecond: 10_000, burst: 10_000 },
  perToken: { perSecond: 10_000, burst: 10_000 },
}

export async function nodeRuntime(): Promise<Runtime> {
  const folder = mkdtempSync(join(tmpdir(), 'understudy-cp-'))
  chmodSync(folder, 0o711)
  const faults: string[] = []
  const running = await startControlPlane({
    dataDir: folder,
    listen: { address: '127.0.0.1', port: 0 },
    databaseUrl: null,
    publicUrl: null,
    identityProviders: [],
    limits: testLimits,
    log: ({ level, message }) => {
      if (level === 'error') faults.push(message)
    },
  })
  return {
    url: running.url,
    instanceToken: running.tokens!.instance,
    databaseUrl: running.databaseUrl,
    adminUrl: running.adminUrl!,
    close: async () => {
      await running.close()
      rmSync(folder, { recursive: true, force: true })
      if (faults.length > 0) throw new Error(`the control plane logged errors:\n${faults.join('\n')}`)
    },
  }
}

export interface Tenant {
  organisation: string
  token: string
  client: ApiClient
}

/** An organisation of its own for a test, so that tests don't see each other. */
export async function newTenant(runtime: Runtime, name = 'tenant'): Promise<Tenant> {
  const instance = new ApiClient({ url: runtime.url, token: runtime.instanceToken })
  const { body } = await instance.call(createOrganisation, { body: { name } })
  return {
    organisation: body.organisation.id,
    token: body.token,
    client: new ApiClient({ url: runtime.url, token: body.token }),
  }
}
