import { execFileSync, spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { makeAuthority, makeHostCertificate } from '../../../node-agent/keys/certificates.ts'
import type { ClusterSpec } from '../../../node-agent/postgres/cluster.ts'
import { PostgresDriver } from '../../../node-agent/postgres/driver.ts'
import { initialise } from '../../../node-agent/postgres/initialise.ts'
import { killAll } from '../../../node-agent/postgres/processes.ts'
import { otherNode } from '../../../shared/protocol/nodes.ts'
import type { DatabaseOp, DatabaseResult, DataNode } from '../../../shared/protocol/types.ts'

/** Two clusters on loopback, as the agents of a pair would run them. */
export interface TestHost {
  spec: ClusterSpec
  driver: PostgresDriver
  /** As the set-up of a pair does. */
  create(): Promise<void>
  must(op: DatabaseOp): Promise<DatabaseResult & { ok: true }>
  /** What psql prints, without a prompt: over the agent's own socket. */
  psql(statement: string): string
  progress: string[]
}

const cgroupRoot = ['/sys/fs/cgroup/unified', '/sys/fs/cgroup'].find(path =>
  existsSync(join(path, 'cgroup.controllers')),
)

export async function twoClusters(options: {
  /** Of host a, b's is the next one: below what the kernel gives to outgoing connections (32768 on), which may be in use. */
  portA: number
  hangMs?: number
  /** For both clusters. */
  spec?: Partial<ClusterSpec>
}): Promise<{ a: TestHost; b: TestHost; cleanUp: () => Promise<void> }> {
  const root = mkdtempSync(join(tmpdir(), 'understudy-pg-'))
  execFileSync('chmod', ['755', root])
  const authority = await makeAuthority(root, 'test pair')
  writeFileSync(join(root, 'ca.crt'), authority.certificatePem)
  const ports: Record<DataNode, number> = { a: options.portA, b: options.portA + 1 }
  const uid = Number(execFileSync('id', ['-u', 'postgres'], { encoding: 'utf8' }))
  const gid = Number(execFileSync('id', ['-g', 'postgres'], { encoding: 'utf8' }))
  const version = readdirSync('/usr/lib/postgresql').sort().at(-1) ?? ''
  const hosts: Partial<Record<DataNode, TestHost>> = {}
  for (const node of ['a', 'b'] as const) {
    const home = join(root, node)
    mkdirSync(join(home, 'conf'), { recursive: true })
    mkdirSync(join(home, 'sock'))
    execFileSync('chown', ['-R', `${uid}:${gid}`, home])
    const pair = await makeHostCertificate(root, { authority, name: { commonName: node, addresses: ['127.0.0.1'] } })
    writeFileSync(join(home, 'host.crt'), pair.certificatePem)
    writeFileSync(join(home, 'host.key'), pair.keyPem, { mode: 0o600 })
    const spec: ClusterSpec = {
      node,
      binDir: `/usr/lib/postgresql/${version}/bin`,
      // Its parent is missing, as on a host that never had a cluster.
      dataDir: join(home, 'clusters', 'data'),
      socketDir: join(home, 'sock'),
      port: ports[node],
      listenAddresses: ['127.0.0.1'],
      user: { name: 'postgres', uid, gid },
      confDir: join(home, 'conf'),
      evidenceDir: join(home, 'evidence'),
      evidenceMb: 64,
      cgroup: cgroupRoot === undefined ? null : join(cgroupRoot, `understudy-test-${process.pid}-${ports[node]}`),
      walSegmentMb: 1,
      mode: 'create',
      peerAddresses: ['127.0.0.1'],
      tls: { certFile: join(home, 'host.crt'), keyFile: join(home, 'host.key'), caFile: join(root, 'ca.crt') },
      slotWalMb: 256,
      hangMs: options.hangMs ?? 1000,
      superuser: 'postgres',
      ...options.spec,
    }
    const progress: string[] = []
    const peerPort = ports[otherNode(node)]
    const driver = new PostgresDriver({
      spec,
      peerDatabase: [{ host: '127.0.0.1', port: peerPort }],
      progress: line => progress.push(line),
    })
    await driver.adopt()
    hosts[node] = {
      spec,
      driver,
      progress,
      create: () => initialise(spec, line => progress.push(line)),
      async must(op) {
        const result = await driver.perform(op)
        if (!result.ok) throw new Error(`${op.op} failed: ${result.why}; ${progress.join(' | ')}`)
        return result
      },
      psql: statement =>
        execFileSync(
          'psql',
          [
            '-XAtq',
            '-h',
            spec.socketDir,
            '-p',
            String(spec.port),
            '-U',
            spec.superuser,
            '-d',
            'postgres',
            '-c',
            statement,
          ],
          {
            encoding: 'utf8',
          },
        ).trim(),
    }
  }
  const a = hosts.a!
  const b = hosts.b!
  return {
    a,
    b,
    async cleanUp() {
      for (const { driver, spec } of [a, b]) {
        await driver.detach()
        // One that ends by itself takes its shared memory along, a killed one leaves it until the next start.
        const stop = [join(spec.binDir, 'pg_ctl'), 'stop', '-D', spec.dataDir, '-m', 'immediate', '-s']
        const as = [`--reuid=${uid}`, `--regid=${gid}`, '--clear-groups']
        spawnSync('setpriv', [...as, ...stop], { cwd: '/', stdio: 'ignore', timeout: 20_000 })
        await killAll(spec)
        if (spec.cgroup !== null) rmdirSync(spec.cgroup)
      }
      rmSync(root, { recursive: true, force: true })
    },
  }
}
