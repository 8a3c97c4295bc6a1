import { readFileSync } from 'node:fs'
import { createServer, isIP } from 'node:net'
import { join } from 'node:path'
import { existingAbove, makeFolder } from '../folders.ts'
import { checkLocation } from '../state-file/location.ts'
import { enrolmentTokenName, operatorTokenName, type WitnessIdentity, witnessIdentity } from './identity.ts'
import { type WitnessLimits, WitnessServer } from './server.ts'
import { WitnessStore } from './store.ts'

export interface WitnessOptions {
  /** address:port, [v6]:port */
  listen: string
  dataDir: string
  tlsCert: string | null
  tlsKey: string | null
  limits?: WitnessLimits
}

export interface RunningWitness {
  identity: WitnessIdentity
  address: string
  port: number
  close(): Promise<void>
}

/** `onFailure`: the store can't be written any more; the process should end, and say why. */
export async function startWitness(
  options: WitnessOptions,
  onFailure: (why: string) => void,
): Promise<{ ok: true; witness: RunningWitness } | { ok: false; why: string }> {
  const at = parseListen(options.listen)
  if (at === null)
    return { ok: false, why: `"${options.listen}" is not address:port, such as 0.0.0.0:7443 or [::]:7443` }
  if ((options.tlsCert === null) !== (options.tlsKey === null)) {
    return { ok: false, why: '--tls-cert and --tls-key belong together' }
  }
  const given = givenCertificate(options)
  const why = typeof given === 'string' ? given : await whyNotListen(at)
  if (typeof given === 'string' || why !== '') return { ok: false, why }
  const cannot = whyNoFolder(options.dataDir)
  if (cannot !== '') return { ok: false, why: `--data-dir: ${cannot}` }
  const opened = await WitnessStore.open(options.dataDir, onFailure)
  if (!opened.ok) return opened
  try {
    const addresses = isWildcard(at.address) ? [] : [at.address]
    const identity = await witnessIdentity({ folder: options.dataDir, addresses, given })
    const server = new WitnessServer(opened.store, identity, options.limits)
    const { address, port } = await server.listen(at)
    const close = async (): Promise<void> => {
      await server.close()
      await opened.store.close()
    }
    return { ok: true, witness: { identity, address, port, close } }
  } catch (fault) {
    await opened.store.close()
    return { ok: false, why: fault instanceof Error ? fault.message : String(fault) }
  }
}

/** `understudy witness`: runs until it is told to stop. */
export async function runWitness(options: WitnessOptions): Promise<number> {
  let ended: (code: number) => void = () => {}
  const end = new Promise<number>(resolve => {
    ended = resolve
  })
  const started = await startWitness(options, why => {
    console.error(why)
    ended(1)
  })
  if (!started.ok) {
    console.error(started.why)
    return 1
  }
  const { identity, address, port, close } = started.witness
  console.log(`witness listening on ${isIP(address) === 6 ? `[${address}]` : address}:${port}`)
  console.log(`certificate fingerprint (sha256): ${identity.fingerprint}`)
  console.log(`enrolment token of new pairs: ${join(options.dataDir, enrolmentTokenName)}`)
  console.log(`operator token: ${join(options.dataDir, operatorTokenName)}`)
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => ended(0))
  const code = await end
  await close()
  return code
}

/** Or why they can't be read. */
function givenCertificate(options: WitnessOptions): { keyPem: string; certificatePem: string } | null | string {
  if (options.tlsCert === null || options.tlsKey === null) return null
  try {
    return { certificatePem: readFileSync(options.tlsCert, 'utf8'), keyPem: readFileSync(options.tlsKey, 'utf8') }
  } catch (fault) {
    const why = fault instanceof Error ? fault.message : String(fault)
    return `--tls-cert ${options.tlsCert} and --tls-key ${options.tlsKey} cannot both be read (${why}): correct the paths`
  }
}

/** Made where it is missing, and nowhere where votes would not be kept; '' or why it can't be. */
function whyNoFolder(path: string): string {
  try {
    const location = checkLocation(existingAbove(path))
    if (!location.ok) return location.why
    makeFolder(path, 0o700)
    return ''
  } catch (fault) {
    return fault instanceof Error ? fault.message : String(fault)
  }
}

/** Asked before anything is made: a witness that can't be reached must not leave a store behind. '' where it can. */
function whyNotListen(at: { address: string; port: number }): Promise<string> {
  return new Promise(resolve => {
    const server = createServer()
    server.once('error', (fault: NodeJS.ErrnoException) => {
      const remedy =
        fault.code === 'EADDRINUSE'
          ? 'another program has it; stop that one, or name another port with --listen'
          : 'name an address of this machine with --listen'
      resolve(`${at.address}, port ${at.port}, cannot be listened on (${fault.code}): ${remedy}`)
    })
    server.listen({ host: at.address, port: at.port }, () => server.close(() => resolve('')))
  })
}

function parseListen(text: string): { address: string; port: number } | null {
  const match = /^(?:\[([^\]]+)\]|([^:]+)):(\d{1,5})$/.exec(text)
  const address = match?.[1] ?? match?.[2]
  const port = Number(match?.[3])
  return address === undefined || isIP(address) === 0 || port > 65535 ? null : { address, port }
}

const isWildcard = (address: string): boolean => address === '0.0.0.0' || address === '::'
