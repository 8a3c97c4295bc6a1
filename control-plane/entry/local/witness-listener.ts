import { createHash, generateKeyPairSync, X509Certificate } from 'node:crypto'
import { existsSync } from 'node:fs'
import { createServer } from 'node:https'
import { join } from 'node:path'
import { serve } from '@hono/node-server'
import { type AuthoritySecrets, issueCertificate } from '../../auth/x509.ts'
import type { WitnessPlace } from '../../deps.ts'
import { readSecret, writeSecret } from './secrets.ts'

/**
 * The hosted witness of a control plane that is itself reached by plain HTTP, on this machine or behind somebody's TLS: a
 * vote that others on the way could write is none, so hosts get a listener of their own, whose certificate they are told
 * in their signed documents. It answers what concerns the witness, and nothing else.
 */
interface ListenerOptions {
  folder: string
  authority: AuthoritySecrets
  address: string
  /** 0: a free one. */
  port: number
  fetch: (request: Request, env?: object) => Response | Promise<Response>
}

/** Hosts compare the certificate itself, and look at none of its dates. */
const certificateDays = 3650

export async function startWitnessListener(
  options: ListenerOptions,
): Promise<{ place: WitnessPlace; close: () => Promise<void> }> {
  const { address, port, fetch } = options
  const own = await ownCertificate(options)
  const fingerprint = createHash('sha256').update(new X509Certificate(own.certificatePem).raw).digest('hex')
  const onlyVotes = (request: Request, env?: object): Response | Promise<Response> =>
    new URL(request.url).pathname.startsWith('/witness/v1/') ? fetch(request, env) : new Response(null, { status: 404 })
  return new Promise((resolve, reject) => {
    const server = serve(
      {
        fetch: onlyVotes,
        hostname: address,
        port,
        createServer,
        serverOptions: { key: own.keyPem, cert: own.certificatePem, minVersion: 'TLSv1.3' },
      },
      info => {
        const host = info.family === 'IPv6' ? `[${info.address}]` : info.address
        const close = (): Promise<void> =>
          new Promise(done => {
            server.close(() => done())
            if ('closeAllConnections' in server) server.closeAllConnections()
          })
        resolve({ place: { url: `https://${host}:${info.port}`, fingerprint }, close })
      },
    )
    server.once('error', reject)
  })
}

/** Made once and kept: the hosts of every pair know it. */
async function ownCertificate({
  folder,
  authority,
  address,
}: ListenerOptions): Promise<{ keyPem: string; certificatePem: string }> {
  const path = join(folder, 'witness.json')
  if (existsSync(path))
    return readSecret(path, 'hosts do not know this witness') as { keyPem: string; certificatePem: string }
  const { publicKey, privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const now = new Date()
  const certificatePem = await issueCertificate(
    authority,
    {
      commonName: 'understudy hosted witness',
      publicKey: new Uint8Array(publicKey.export({ type: 'spki', format: 'der' })),
      use: 'server',
      names: [{ kind: 'ip', value: address }],
      notAfter: new Date(now.getTime() + certificateDays * 86_400_000),
    },
    now,
  )
  const made = { keyPem: privateKey.export({ type: 'pkcs8', format: 'pem' }).toString(), certificatePem }
  writeSecret(path, JSON.stringify(made))
  return made
}
