import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { mkdtemp, rename, rm, stat, writeFile } from 'node:fs/promises'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { zeroDiscards } from '../../node-agent/peer/link-report.ts'
import type { CheckReport } from '../../node-agent/report/check-report.ts'
import { metricsText } from '../../node-agent/report/metrics.ts'
import type { StatusReport } from '../../node-agent/report/status-report.ts'
import { VerbError } from '../../node-agent/socket/messages.ts'
import { SocketServer, type Verb } from '../../node-agent/socket/server.ts'

const folder = await mkdtemp(join(tmpdir(), 'understudy-cli-'))
after(() => rm(folder, { recursive: true, force: true }))
const entry = fileURLToPath(new URL('../../node-agent/cli/main.ts', import.meta.url))

interface Ran {
  code: number | null
  stdout: string
  stderr: string
}
function understudy(args: readonly string[]): Promise<Ran> {
  return new Promise(resolve => {
    const child = spawn(process.execPath, [entry, ...args], { stdio: ['ignore', 'pipe', 'pipe'] })
    let [stdout, stderr] = ['', '']
    child.stdout.on('data', text => {
      stdout += text
    })
    child.stderr.on('data', text => {
      stderr += text
    })
    child.on('close', code => resolve({ code, stdout, stderr }))
  })
}

const status: StatusReport = {
  pair: 'orders',
  node: 'b',
  role: 'backup',
  gen: 1,
  genHeard: 1,
  epoch: 3,
  version: 12,
  serving: false,
  primary: 'a',
  successor: false,
  protection: 'not serving',
  since: '2026-01-02T03:04:05.000Z',
  why: 'a is the primary of epoch 3',
  sealed: true,
  maintenance: false,
  maintenanceUntil: null,
  blocking: ['the primary is silent'],
  lease: { held: false, leftMs: 0 },
  gate: { state: 'closed', leftMs: 0 },
  peer: {
    node: 'a',
    heardAgoMs: 61_000,
    admitted: true,
    isMember: true,
    why: '',
    paths: [{ local: '10.0.0.2', peer: '10.0.0.1', heardMs: 61_000, lossPercent: null, roundTripMs: null }],
    usesNewestKey: false,
    refused: { ...zeroDiscards(), forged: 3, unknownSession: 1 },
  },
  witness: {
    url: 'https://w',
    reach: 'yes',
    answeredAgoMs: 4000,
    voteP99Ms: 12,
    why: '',
    isMember: true,
    isVoid: false,
    alternate: null,
  },
  replication: {
    process: 'standby',
    timeline: 2,
    lsn: '0/3000148',
    streaming: false,
    lagBytes: null,
    operation: null,
    lastError: '',
    standing: '',
  },
  vips: [{ address: '10.0.0.100/24', interface: 'lan0', present: false, conflict: null }],
  uplink: { up: true, why: '' },
  disks: [{ path: '/var', freeMb: 900, totalMb: 1000 }],
  services: [],
  workers: [],
  sync: [],
  certificates: [{ of: 'host', ends: '2029-03-02T00:00:00.000Z' }],
  alarms: ['the gate was removed by somebody else and restored'],
  agent: { pid: 1, version: 'development', startedAt: '2026-01-02T03:04:05.000Z', profile: 'default' },
}
const check: CheckReport = {
  node: 'b',
  role: 'backup',
  takeover: false,
  switchover: false,
  blocking: ['the primary is silent'],
  warnings: [],
  predicted: { powerCutOutageMs: null, databaseDeathOutageMs: null, switchoverOutageMs: null, loss: 'none by itself' },
  timing: { profile: 'default', leaseMs: 1000, shrinkNeedsMs: 795, leaseLeftMs: 822, voteP99Ms: 12, voteLimitMs: 293 },
}

let servers = 0
async function fakeAgent(
  verbs: Record<string, Verb>,
): Promise<{ path: string; asked: [string, unknown][]; close: () => void }> {
  const path = join(folder, `agent-${++servers}.sock`)
  const asked: [string, unknown][] = []
  const all: Record<string, Verb> = { status: async () => status, check: async () => check, ...verbs }
  const noting = Object.fromEntries(
    Object.entries(all).map(([name, verb]): [string, Verb] => [
      name,
      (args, call) => {
        asked.push([name, args])
        return verb(args, call)
      },
    ]),
  )
  const server = new SocketServer({ path, verbs: noting, failed: () => {} })
  await server.listen()
  return { path, asked, close: () => server.close() }
}

test('status prints one screen, and with --json the whole report', async () => {
  const agent = await fakeAgent({})
  const text = await understudy(['status', '--socket', agent.path])
  assert.equal(text.code, 0, text.stderr)
  assert.match(text.stdout, /pair orders · host b · backup · a is primary · epoch 3/)
  assert.match(text.stdout, /NOT SERVING, MAY NOT TAKE OVER, since .*: a is the primary of epoch 3/)
  assert.match(text.stdout, /no automatic takeover: the primary is silent/)
  assert.match(text.stdout, /0 of 1 path works \(packets refused: 3 forged, 1 unknown session\)/)
  assert.match(text.stdout, /path +\S+ to \S+: DOWN, heard 61\.00 s ago/)
  assert.match(text.stdout, /ALARM +the gate was removed/)
  const json = await understudy(['--socket', agent.path, 'status', '--json'])
  assert.deepEqual(JSON.parse(json.stdout), status)
  agent.close()
})

test('metrics count refused packets by reason', () => {
  const text = metricsText(status, { gate: {}, decisionsDropped: 0, cancelledWaits: 0 })
  const lines = text.split('\n').filter(line => line.includes('understudy_peer_refused_packets_total'))
  assert.equal(lines[1], '# TYPE understudy_peer_refused_packets_total counter')
  const counts = lines.slice(2).map(line => line.replace(/.*reason="(\w+)"}/, '$1'))
  assert.ok(counts.includes('forged 3') && counts.includes('replayed 0') && counts.includes('foreign 0'), text)
})

test('metrics say when each certificate ends', () => {
  const text = metricsText(status, { gate: {}, decisionsDropped: 0, cancelledWaits: 0 })
  assert.match(text, /understudy_certificate_end_timestamp_seconds{.*certificate="host"} 1867104000\n/)
})

test('check ends with 6 when a takeover would not succeed', async () => {
  const agent = await fakeAgent({})
  const { code, stdout } = await understudy(['check', '--socket', agent.path])
  assert.equal(code, 6)
  assert.match(stdout, /would NOT succeed now:\n {2}- the primary is silent/)
  agent.close()
})

test('a wrong option, argument or verb is one sentence and exit code 2', async () => {
  const cases: [string[], RegExp][] = [
    [['status', '--jsn'], /unknown option '--jsn'/],
    [['why', '--last', 'many'], /give a whole number from 1 to 2000/],
    [['maintenance', 'on'], /required option '--for <time>' not specified/],
    [['maintenance', 'on', '--for', '3 days'], /write it like 90s, 30m or 2h/],
    [['takover'], /unknown command 'takover'/],
    [['takeover'], /with the other host switched off, add --force/],
  ]
  for (const [args, sentence] of cases) {
    const { code, stderr } = await understudy(args)
    assert.equal(code, 2, `${args.join(' ')}: ${stderr}`)
    assert.match(stderr, sentence)
  }
})

test('without an agent the sentence says how to start it, and the exit code is 4', async () => {
  const { code, stderr } = await understudy(['status', '--socket', join(folder, 'nobody.sock')])
  assert.equal(code, 4)
  assert.match(stderr, /no agent runs here: .*nobody\.sock does not exist; start it with/)
})

test('a bad configuration is refused with exit code 3', async () => {
  const path = join(folder, 'bad.json')
  await writeFile(path, '{"pair": "orders", "vipps": []}')
  const { code, stderr } = await understudy(['status', '--config', path])
  assert.equal(code, 3)
  assert.match(stderr, /bad\.json was refused, nothing was changed:/)
  assert.match(stderr, /vipps is not a key of this configuration/)
})

test('a refusal of the pair ends with 5 and its reason, long work shows its progress', async () => {
  const agent = await fakeAgent({
    switchover: async (_args, call) => {
      call.progress({ id: 1, wallMs: 1_700_000_000_000, bootMs: 1, epoch: 3, why: 'switches over to a' })
      throw new VerbError('refused', 'the backup is silent')
    },
  })
  const { code, stderr } = await understudy(['switchover', '--socket', agent.path])
  assert.equal(code, 5)
  assert.match(stderr, /epoch 3 {2}switches over to a/)
  assert.match(stderr, /understudy: the backup is silent/)
  agent.close()
})

test('a forced takeover says what may be lost and does nothing unconfirmed', async () => {
  const agent = await fakeAgent({ takeover: async () => ({ why: 'this host serves' }) })
  const refused = await understudy(['takeover', '--force', '--socket', agent.path])
  assert.equal(refused.code, 7)
  assert.match(refused.stderr, /Acknowledged writes that may be lost: everything that a acknowledged alone/)
  assert.match(refused.stderr, /a was heard 1 min ago/)
  assert.deepEqual(
    agent.asked.map(([verb]) => verb),
    ['status'],
  )
  const forced = await understudy(['takeover', '--force', '--yes', '--socket', agent.path])
  assert.equal(forced.code, 0, forced.stderr)
  assert.deepEqual(agent.asked.at(-1), ['takeover', { gen: 1, epoch: 3, withWitness: true }])
  agent.close()
})

test('a takeover over a generation that was forced elsewhere says so, and takes its number', async () => {
  const agent = await fakeAgent({
    status: async () => ({ ...status, genHeard: 2 }),
    takeover: async () => ({ why: 'this host serves' }),
  })
  const forced = await understudy(['takeover', '--force', '--yes', '--over-gen', '2', '--socket', agent.path])
  assert.equal(forced.code, 0, forced.stderr)
  assert.match(forced.stderr, /Generation 2 was forced on a, .* add --over-gen 2 to give it up/)
  assert.deepEqual(agent.asked.at(-1), ['takeover', { gen: 2, epoch: 3, withWitness: true }])
  const nonsense = await understudy(['takeover', '--force', '--over-gen', 'x', '--socket', agent.path])
  assert.equal(nonsense.code, 2)
  agent.close()
})

test('maintenance carries its length, and a verb an older agent does not know is refused', async () => {
  const agent = await fakeAgent({ maintenance: async () => ({ why: 'no automatic takeover until then' }) })
  const { code, stdout } = await understudy(['maintenance', 'on', '--for', '30m', '--socket', agent.path])
  assert.equal(code, 0)
  assert.equal(stdout, 'no automatic takeover until then\n')
  assert.deepEqual(agent.asked, [['maintenance', { forMs: 1_800_000 }]])
  const unknown = await understudy(['switchover', '--socket', agent.path])
  assert.equal(unknown.code, 2)
  assert.match(unknown.stderr, /the agent knows no verb "switchover"/)
  agent.close()
})

test('the socket is the operator’s alone, refuses a second agent and replaces a dead one’s', async () => {
  const agent = await fakeAgent({})
  assert.equal((await stat(agent.path)).mode & 0o777, 0o600)
  const second = new SocketServer({ path: agent.path, verbs: {}, failed: () => {} })
  await assert.rejects(second.listen(), /is answered by another agent/)
  agent.close()
  const dead = join(folder, 'dead.sock')
  const left = createServer()
  await new Promise<void>(resolve => left.listen(dead, resolve))
  // Moved away, it stays when its server ends, as after a kill.
  const stale = join(folder, 'stale.sock')
  await rename(dead, stale)
  left.close()
  const next = new SocketServer({ path: stale, verbs: {}, failed: () => {} })
  await next.listen()
  next.close()
})

test('any number of requests goes by one connection', async t => {
  const warnings: Error[] = []
  const warn = (warning: Error): void => void warnings.push(warning)
  process.on('warning', warn)
  t.after(() => process.off('warning', warn))
  const agent = await fakeAgent({})
  const { connect } = await import('node:net')
  const socket = connect(agent.path)
  socket.setEncoding('utf8')
  let answers = 0
  const asked = 20
  await new Promise<void>((resolve, reject) => {
    let rest = ''
    socket.on('error', reject)
    socket.on('data', text => {
      const lines = (rest + text).split('\n')
      rest = lines.pop() ?? ''
      answers += lines.length
      if (answers >= asked) resolve()
      else socket.write('{"id":1,"verb":"status","args":{}}\n')
    })
    socket.write('{"id":1,"verb":"status","args":{}}\n')
  })
  socket.destroy()
  agent.close()
  assert.deepEqual(warnings, [], 'each request leaves something at the connection')
})

test('an endless or senseless request ends its connection, not the agent', async () => {
  const agent = await fakeAgent({})
  const { connect } = await import('node:net')
  const say = (text: string): Promise<string> =>
    new Promise(resolve => {
      const socket = connect(agent.path)
      let heard = ''
      socket.on('data', chunk => {
        heard += chunk
        if (heard.includes('\n')) socket.destroy()
      })
      socket.on('close', () => resolve(heard))
      socket.write(text)
    })
  assert.match(await say('nonsense\n'), /a request is one line of JSON/)
  assert.match(await say(`{"id":1,"verb":"status","extra":1}\n`), /a request needs id, verb and args/)
  assert.match(await say('x'.repeat(40_000)), /longer than 16384 bytes/)
  assert.equal((await understudy(['status', '--socket', agent.path])).code, 0)
  agent.close()
})
