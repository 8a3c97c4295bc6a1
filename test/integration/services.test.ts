import assert from 'node:assert/strict'
import { existsSync, readFileSync } from 'node:fs'
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { freePort } from '../../control-plane/entry/local/child.ts'
import { type ServiceConfig, serviceSchema } from '../../node-agent/config-services.ts'
import { Services } from '../../node-agent/services/supervisor.ts'
import { withoutDescriptors } from '../fixtures/without-descriptors.ts'

const folder = await mkdtemp(join(tmpdir(), 'understudy-services-'))
after(() => rm(folder, { recursive: true, force: true }))

/** Wide: the machine may be busy. */
const patienceMs = 60_000
async function until(what: string, holds: () => boolean): Promise<void> {
  const end = performance.now() + patienceMs
  while (!holds()) {
    assert.ok(performance.now() < end, `${what}: not within ${patienceMs} ms`)
    await sleep(20)
  }
}

const primary = { role: 'primary', epoch: 7, why: 'takeover' } as const
const backup = { role: 'backup', epoch: 8, why: 'switchover' } as const
let folders = 0

function setUp(configs: object[], options: { runtimeDir?: string; reachable?: () => boolean } = {}) {
  const notes: string[] = []
  const runtimeDir = options.runtimeDir ?? join(folder, String(++folders))
  const services = new Services({
    pair: 'orders',
    node: 'a',
    services: configs.map((config): ServiceConfig => serviceSchema.parse(config)),
    runtimeDir,
    reachable: options.reachable ?? (() => true),
    note: why => notes.push(why),
  })
  const states = (): string =>
    services
      .state()
      .map(one => `${one.name} ${one.state}`)
      .join(', ')
  return { services, notes, states, runtimeDir }
}

const shell = (script: string): string[] => ['/bin/sh', '-c', script]

test('services start in order with role, epoch and reason in their environment, and stop in the opposite order', async () => {
  const trace = join(folder, 'trace')
  const line = (text: string): string =>
    `echo "${text} $UNDERSTUDY_ROLE $UNDERSTUDY_EPOCH $UNDERSTUDY_REASON" >> ${trace}`
  const one = (name: string) => ({ name, start: shell(line(`${name} up`)), stop: shell(line(`${name} down`)) })
  const { services, states } = setUp([one('first'), one('second')])
  services.start(primary)
  await until('both run', () => states() === 'first running, second running')
  await services.stop(backup)
  assert.equal(states(), 'first stopped, second stopped')
  const lines = readFileSync(trace, 'utf8').trim().split('\n')
  assert.deepEqual(
    lines.map(text => text.split(' ').slice(0, 2).join(' ')),
    ['first up', 'second up', 'second down', 'first down'],
  )
  assert.equal(lines[0], 'first up primary 7 takeover')
})

test('a program that ends is restarted, and after its budget the pair is told', async () => {
  const { services, notes, states } = setUp([
    { name: 'brittle', run: shell('sleep 0.2; exit 3'), restarts: { budget: 2 } },
  ])
  const told: string[] = []
  services.onExhausted(why => told.push(why))
  services.start(primary)
  await until('the budget is used up', () => told.length > 0)
  assert.match(told[0] ?? '', /service brittle failed \(\/bin\/sh ended with code 3\) and used up its 2 restarts/)
  assert.equal(notes.filter(note => note.includes('is restarted')).length, 2)
  assert.equal(states(), 'brittle failed')
  await services.stop(backup)
})

test('a service that has failed here before is told apart when it comes back and fails again, until its window is over', async () => {
  const restarts = { budget: 1, windowMs: 4_000 }
  const { services } = setUp([{ name: 'brittle', run: shell('exit 3'), restarts }])
  const told: boolean[] = []
  services.onExhausted((_why, { again }) => told.push(again))
  const failsOnce = async (): Promise<void> => {
    const before = told.length
    services.start(primary)
    await until('the budget is used up', () => told.length > before)
    await services.stop(backup)
  }
  await failsOnce()
  await failsOnce()
  assert.deepEqual(told, [false, true])
  await sleep(restarts.windowMs)
  await failsOnce()
  assert.deepEqual(told, [false, true, false])
})

test('a program that ignores SIGTERM is killed with its children when its limit is over', async () => {
  const pids = join(folder, 'pids')
  const said = (): number[] => (readFileSync(pids, 'utf8').match(/\d+(?=\s)/g) ?? []).map(Number)
  const script = `trap '' TERM; sleep 60 & echo $$ $! > ${pids}; while :; do sleep 0.1; done`
  const { services, states } = setUp([{ name: 'stubborn', run: shell(script), stopLimitMs: 300 }])
  services.start(primary)
  // It runs some time before it has said so.
  await until('it runs', () => states() === 'stubborn running' && existsSync(pids) && said().length === 2)
  const [shellPid, childPid] = said()
  await services.stop(backup)
  assert.equal(states(), 'stubborn stopped')
  for (const pid of [shellPid, childPid]) await until(`process ${pid} is gone`, () => isGone(pid!))
})

test('an unhealthy service is restarted; health by command, TCP and HTTP', async () => {
  const flag = join(folder, 'well')
  await writeFile(flag, '')
  const port = await freePort()
  const server = join(folder, 'server.mjs')
  await writeFile(
    server,
    `import { createServer } from 'node:http'; createServer((_, answer) => answer.end('ok')).listen(${port}, '127.0.0.1')`,
  )
  const quick = { intervalMs: 100, timeoutMs: 2000, failures: 2 }
  const { services, states, notes } = setUp([
    { name: 'commanded', run: shell('exec sleep 60'), health: { command: ['/usr/bin/test', '-e', flag], ...quick } },
    { name: 'web', run: [process.execPath, server], health: { http: `http://127.0.0.1:${port}/`, ...quick } },
    { name: 'same-port', start: ['/bin/true'], stop: ['/bin/true'], health: { tcp: `127.0.0.1:${port}`, ...quick } },
  ])
  services.start(primary)
  await until('all are well', () => states() === 'commanded running, web running, same-port running')
  await rm(flag)
  await until('the failed one is restarted', () =>
    notes.some(note => note.startsWith('service commanded is restarted')),
  )
  await writeFile(flag, '')
  await until('it is well again', () => states().startsWith('commanded running'))
  await services.stop(backup)
})

test('the next agent adopts a running service and can stop it', async () => {
  const config = { name: 'kept', run: shell('exec sleep 60') }
  const before = setUp([config])
  before.services.start(primary)
  await until('it runs', () => before.states() === 'kept running')
  before.services.detach()
  const next = setUp([config], { runtimeDir: before.runtimeDir })
  const { pid } = JSON.parse(readFileSync(join(before.runtimeDir, 'services', 'kept.json'), 'utf8'))
  next.services.start(primary)
  await until('it is adopted', () => next.states() === 'kept running')
  assert.ok(!next.notes.some(note => note.includes('was started')), 'it was started a second time')
  // Looked at each second, also by an agent that can't read what the kernel says of it.
  await withoutDescriptors(() => sleep(1_500))
  assert.ok(!isGone(pid), 'an agent without a descriptor left took it for ended, and killed it')
  await next.services.stop(backup)
  assert.ok(isGone(pid), 'the adopted process is left')
})

test('a program whose process can not be noted, as on a full disk, is ended again and fails, and the agent goes on', async () => {
  const runtimeDir = join(folder, String(++folders))
  // A file where its folder is to be: refused as by a disk without room.
  await mkdir(runtimeDir)
  await writeFile(join(runtimeDir, 'services'), '')
  const pids = join(folder, 'unnoted')
  const config = { name: 'unnoted', run: shell(`echo $$ >> ${pids}; exec sleep 60`), restarts: { budget: 1 } }
  const { services, states } = setUp([config], { runtimeDir })
  const told: string[] = []
  services.onExhausted(why => told.push(why))
  services.start(primary)
  await until('the budget is used up', () => told.length > 0)
  assert.match(told[0] ?? '', /service unnoted failed \(\/bin\/sh was ended again, since its process can't be noted: E/)
  assert.equal(states(), 'unnoted failed')
  const started = existsSync(pids) ? readFileSync(pids, 'utf8').trim().split('\n') : []
  for (const pid of started) assert.ok(isGone(Number(pid)), `process ${pid} is left`)
  await services.stop(backup)
})

test('a unit whose manager does not answer is left alone; one that it says has ended is started anew', async t => {
  const bin = join(folder, 'bin')
  const [active, silent, looks] = ['active', 'silent', 'looks'].map(name => join(bin, name)) as [string, string, string]
  await mkdir(bin)
  const script = `#!/bin/sh
case "$*" in
  *is-active*) echo look >> ${looks}; test -e ${silent} && kill -9 $$
    if test -e ${active}; then echo active; else echo inactive; exit 3; fi ;;
  *" start "*) touch ${active} ;;
  *" stop "*) rm -f ${active} ;;
esac
`
  await writeFile(join(bin, 'systemctl'), script, { mode: 0o755 })
  const path = process.env.PATH
  process.env.PATH = `${bin}:${path}`
  t.after(() => {
    process.env.PATH = path
  })
  const { services, notes, states } = setUp([{ name: 'web', unit: 'web.service' }])
  const lookCount = (): number => readFileSync(looks, 'utf8').split('\n').length
  services.start(primary)
  await until('it runs', () => states() === 'web running')
  await writeFile(silent, '')
  const before = lookCount()
  await until('it was looked at', () => lookCount() >= before + 2)
  assert.ok(!notes.some(note => note.includes('is restarted')), notes.join('\n'))
  await rm(silent)
  await rm(active)
  await until('it is started anew', () => existsSync(active) && states() === 'web running')
  assert.match(notes.join('\n'), /service web is restarted, 1 of \d+: web\.service is not active/)
  await services.stop(backup)
  assert.equal(states(), 'web stopped')
})

test('a stop that comes while a service starts leaves nothing running', async () => {
  const { services, states } = setUp([{ name: 'hasty', run: shell('exec sleep 60') }])
  services.start(primary)
  await services.stop(backup)
  await sleep(300)
  assert.equal(states(), 'hasty stopped')
})

function isGone(pid: number): boolean {
  try {
    return / Z /.test(readFileSync(`/proc/${pid}/stat`, 'utf8'))
  } catch {
    return true
  }
}

test('a service that does not answer through a frozen gate is left alone, and judged when the gate is open again', async () => {
  let isOpen = true
  const health = { tcp: '127.0.0.1:1', intervalMs: 100, timeoutMs: 100, failures: 2 }
  const config = { name: 'deaf', run: shell('exec sleep 100'), health, startLimitMs: 300 }
  const { services, notes } = setUp([config], { reachable: () => isOpen })
  isOpen = false
  services.start(primary)
  await until('it was started', () => notes.some(note => note.includes('was started')))
  await sleep(1_500)
  assert.deepEqual(
    notes.filter(note => note.includes('restarted')),
    [],
  )
  isOpen = true
  await until('it is judged', () => notes.some(note => note.includes('restarted')))
  await services.stop(backup)
})
