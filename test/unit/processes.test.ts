import assert from 'node:assert/strict'
import { type ChildProcess, spawn } from 'node:child_process'
import { copyFileSync, mkdirSync, mkdtempSync, realpathSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import type { ClusterSpec } from '../../node-agent/postgres/cluster.ts'
import { isGone, killAll, scan } from '../../node-agent/postgres/processes.ts'
import { hardships } from '../../node-agent/postgres/silence.ts'
import { withoutDescriptors } from '../fixtures/without-descriptors.ts'

/** Real processes that bear the names and the working directory of a cluster's, which is all that they are found by. */
const folder = realpathSync(mkdtempSync(join(tmpdir(), 'understudy-processes-')))
const started: ChildProcess[] = []
after(() => {
  for (const child of started) child.kill('SIGKILL')
  rmSync(folder, { recursive: true, force: true })
})

const spec: ClusterSpec = {
  node: 'a',
  binDir: folder,
  dataDir: join(folder, 'data'),
  socketDir: folder,
  port: 1,
  listenAddresses: [],
  user: { name: 'postgres', uid: 0, gid: 0 },
  superuser: 'postgres',
  confDir: folder,
  evidenceDir: folder,
  evidenceMb: 1,
  cgroup: null,
  walSegmentMb: 16,
  mode: 'create',
  peerAddresses: [],
  tls: { certFile: '', keyFile: '', caFile: '' },
  slotWalMb: 64,
  hangMs: 1000,
}

/** Named as the server's program is; alive until it is killed, in a session of its own as a backend is. */
function start(): Promise<number> {
  const child = spawn(join(folder, 'postgres'), ['600'], { cwd: spec.dataDir, stdio: 'ignore', detached: true })
  started.push(child)
  return new Promise((resolve, reject) => {
    child.on('error', reject)
    child.on('spawn', () => resolve(child.pid ?? 0))
  })
}

test('a kill of a cluster takes the backends that outlive their postmaster too, and proves it', async () => {
  mkdirSync(spec.dataDir)
  copyFileSync('/bin/sleep', join(folder, 'postgres'))
  const postmaster = await start()
  const backend = await start()
  writeFileSync(join(spec.dataDir, 'postmaster.pid'), `${postmaster}\n${spec.dataDir}\n`)
  assert.deepEqual(scan(spec).sort(), [postmaster, backend].sort())
  assert.equal(await killAll(spec), true)
  assert.deepEqual(scan(spec), [], 'a process of the cluster is left after a kill that said it was proven')
})

test('an agent without a descriptor left takes no server for dead, and none for proven gone', async () => {
  mkdirSync(spec.dataDir, { recursive: true })
  copyFileSync('/bin/sleep', join(folder, 'postgres'))
  const pid = await start()
  const seen = await withoutDescriptors(() => ({
    gone: isGone(pid),
    looks: hardships(spec).size,
    proof: proofOf(spec),
  }))
  assert.deepEqual(seen, { gone: false, looks: 0, proof: 'none' })
  assert.deepEqual(scan(spec), [pid])
  assert.equal(await killAll(spec), true)
})

function proofOf(of: ClusterSpec): string {
  try {
    return `these are left: ${scan(of).join(' ')}`
  } catch {
    return 'none'
  }
}
