/** What a pair of two machines wants beside them: a witness, which runs on this machine, and each host's configuration. */
import { type ChildProcess, spawn } from 'node:child_process'
import { mkdirSync, readFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { join } from 'node:path'
import type { ConfigInput } from '../../node-agent/config.ts'
import { enrolmentTokenName } from '../../node-agent/witness-server/identity.ts'
import { until } from './machine.ts'

const program = join(import.meta.dirname, '../../dist/understudy.mjs')

export interface Witness {
  process: ChildProcess
  port: number
  fingerprint: string
  token: string
}

export function freePort(): Promise<number> {
  return new Promise(resolve => {
    const server = createServer().listen(0, '127.0.0.1', () => {
      const { port } = server.address() as { port: number }
      server.close(() => resolve(port))
    })
  })
}

export async function startWitness(folder: string): Promise<Witness> {
  const port = await freePort()
  const data = join(folder, 'witness')
  mkdirSync(data, { recursive: true })
  const words = ['witness', '--listen', `127.0.0.1:${port}`, '--data-dir', data]
  const child = spawn(process.execPath, [program, ...words], { stdio: ['ignore', 'pipe', 'ignore'] })
  let said = ''
  child.stdout.on('data', (chunk: Buffer) => {
    said += chunk.toString()
  })
  const fingerprint = await until(
    'the witness says who it is',
    async () => /\b([0-9a-f]{64})\b/.exec(said)?.[1] ?? null,
  )
  return { process: child, port, fingerprint, token: readFileSync(join(data, enrolmentTokenName), 'utf8') }
}

export function configOf(name: 'a' | 'b', witness: Pick<Witness, 'port' | 'fingerprint'>): ConfigInput {
  const [own, other] = name === 'a' ? [1, 2] : [2, 1]
  return {
    pair: 'machines',
    node: name,
    profile: 'conservative',
    stateDir: '/var/lib/understudy',
    socket: '/run/understudy/agent.sock',
    pairKeyFile: '/var/lib/understudy/pair.key',
    hostKeyFile: '/var/lib/understudy/host.key',
    peer: { paths: [{ local: `10.90.0.${own}`, peer: `10.90.0.${other}`, port: 7400 }] },
    vips: [{ address: '10.90.0.100/24', interface: 'eth1' }],
    protectedPorts: [5432],
    witness: { url: `https://10.0.2.2:${witness.port}`, fingerprint: witness.fingerprint },
    postgres: {
      binDir: '/usr/lib/postgresql/15/bin',
      dataDir: '/var/lib/postgresql/15/understudy',
      socketDir: '/run/understudy-postgres',
      port: 5432,
      user: 'postgres',
      mode: 'create',
    },
  }
}
