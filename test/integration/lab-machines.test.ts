import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { labPaths } from '../../infra/lab/addresses.ts'
import { groupPath, processesIn } from '../../infra/lab/control-groups.ts'
import { run } from '../../infra/lab/exec.ts'
import { heal, inject } from '../../infra/lab/faults.ts'
import { hostPaths, isPoweredOn, networkOf, runOnHost, startOnHost } from '../../infra/lab/hosts.ts'
import { newLabState } from '../../infra/lab/lab-state.ts'
import { createMachines, destroyMachines, remainsOf, wallClockFile } from '../../infra/lab/machine.ts'
import { hostProcesses, isAlive, processState } from '../../infra/lab/processes.ts'
import { until } from '../fixtures/until.ts'
import { moveVip, startPlainDatabase } from './lab-database.ts'
import { passes } from './lab-datagrams.ts'

const lab = `t-mac-${process.pid}`.slice(0, 16)
const other = `t-two-${process.pid}`.slice(0, 16)
const DEMO = join(import.meta.dirname, '../../infra/lab/demo.ts')
const WALL_CLOCK = join(import.meta.dirname, '../../infra/lab/wall-clock.ts')

before(() => createMachines({ name: lab, diskMib: 128 }))
after(async () => {
  await destroyMachines(lab)
  await destroyMachines(other)
})

const bootId = (host: 'a' | 'b') => runOnHost(lab, host, ['cat', '/proc/sys/kernel/random/boot_id'])

test('each host has a boot id, clocks and a name of its own', async () => {
  assert.notEqual(await bootId('a'), await bootId('b'))
  assert.equal(await bootId('a'), await bootId('a'))
  assert.notEqual(await bootId('a'), readFileSync('/proc/sys/kernel/random/boot_id', 'utf8'))
  assert.equal(await runOnHost(lab, 'a', ['hostname']), `a.${lab}\n`)
  const uptimeS = async (host: 'a' | 'b') => Number((await runOnHost(lab, host, ['cat', '/proc/uptime'])).split(' ')[0])
  assert.ok(Math.abs((await uptimeS('a')) - (await uptimeS('b'))) > 1)
})

test('a power cut ends every process and takes the kernel’s state, and the disk survives it', async () => {
  const deaf = 'process.on("SIGTERM", () => {}); setInterval(() => {}, 1000)'
  const pid = await startOnHost(lab, 'a', [process.execPath, '-e', deaf], { log: 'deaf.log' })
  // A group below the host's own, as the agent makes one for its database.
  await runOnHost(lab, 'a', ['mkdir', join(groupPath(lab, 'a'), 'below')])
  writeFileSync(join(groupPath(lab, 'a'), 'below', 'cgroup.procs'), String(pid))
  await moveVip(lab, 'a', 'add')
  await run(...networkOf(lab, 'a', ['nft', 'add', 'table', 'inet', 'gate']))
  writeFileSync(join(hostPaths(lab, 'a').diskDir, 'kept'), 'kept')
  const before = await bootId('a')

  await inject(lab, { kind: 'power', host: 'a' })
  assert.equal(isAlive(pid), false)
  assert.equal(isPoweredOn(lab, 'a'), false)
  assert.equal(isPoweredOn(lab, 'b'), true)
  await assert.rejects(runOnHost(lab, 'a', ['true']), /off/)

  await inject(lab, { kind: 'power-on', host: 'a' })
  assert.notEqual(await bootId('a'), before)
  assert.equal(await run(...networkOf(lab, 'a', ['nft', 'list', 'ruleset'])), '')
  assert.doesNotMatch(await run(...networkOf(lab, 'a', ['ip', 'addr'])), /10\.77\.0\.100/)
  assert.equal(readFileSync(join(hostPaths(lab, 'a').diskDir, 'kept'), 'utf8'), 'kept')
  assert.equal(await passes(lab, { from: 'a', to: 'b' }), true)
})

test('freezing the agent leaves the database running, freezing the database leaves the agent', async () => {
  const child = 'require("child_process").spawn("tail", ["-f", "/dev/null"]); setInterval(() => {}, 1000)'
  const agent = await startOnHost(lab, 'b', [process.execPath, '-e', child], { log: 'agent.log' })
  await startPlainDatabase(lab, 'b')
  await until(() => hostProcesses(lab, 'b', 'agent').length === 2)
  const states = (which: 'agent' | 'postgres') => {
    const stopped = hostProcesses(lab, 'b', which).map(pid => processState(pid) === 'T')
    return stopped.every(Boolean) ? 'stopped' : stopped.some(Boolean) ? 'mixed' : 'running'
  }
  // A thread that runs on another processor stops a moment after the signal was sent.
  await inject(lab, { kind: 'freeze', host: 'b', what: 'agent' })
  await until(() => states('agent') === 'stopped')
  assert.equal(states('postgres'), 'running')
  await inject(lab, { kind: 'continue', host: 'b' })
  await inject(lab, { kind: 'freeze', host: 'b', what: 'postgres' })
  await until(() => states('postgres') === 'stopped')
  assert.equal(states('agent'), 'running')
  await heal(lab)
  assert.deepEqual([states('agent'), states('postgres')], ['running', 'running'])
  await inject(lab, { kind: 'kill', host: 'b', what: 'postmaster' })
  assert.equal(isAlive(agent), true)
})

test('a full disk is full for its own host, and healing empties it', async () => {
  const write = (host: 'a' | 'b') =>
    runOnHost(lab, host, ['dd', 'if=/dev/zero', `of=${hostPaths(lab, host).diskDir}/some`, 'bs=64k', 'count=16'])
  await inject(lab, { kind: 'disk-full', host: 'a' })
  await assert.rejects(write('a'), /No space left/)
  await write('b')
  await heal(lab)
  await write('a')
})

test('a disk that hangs ends no write and fails none until healing, and a power cut gets through to its writers', async () => {
  const write = (host: 'a' | 'b') =>
    runOnHost(lab, host, ['dd', 'if=/dev/zero', `of=${hostPaths(lab, host).diskDir}/some`, 'bs=64k', 'count=16'])
  await inject(lab, { kind: 'disk-hang', host: 'a' })
  const hanging = write('a').then(() => 'ended')
  assert.equal(await Promise.race([hanging, sleep(500, 'hangs')]), 'hangs')
  await write('b')
  await heal(lab)
  assert.equal(await hanging, 'ended')
  await inject(lab, { kind: 'disk-hang', host: 'a' })
  const cutOff = write('a').catch(() => 'cut off')
  await sleep(100)
  await inject(lab, { kind: 'power', host: 'a' })
  assert.notEqual(await cutOff, 'hangs')
  assert.equal(isPoweredOn(lab, 'a'), false)
  await heal(lab)
})

test('the wall clock of one host’s programs jumps and no other clock does', async () => {
  const { wallClockOffsetMs: none } = newLabState(lab, 0)
  assert.deepEqual(none, { a: 0, b: 0 })
  await inject(lab, { kind: 'clock', host: 'a', jumpMs: 3_600_000 })
  const script = 'console.log(Date.now(), new Date().getTime(), Math.round(performance.now()))'
  const env = { ...process.env, UNDERSTUDY_LAB_WALL_CLOCK: wallClockFile(lab, 'a') }
  const told = await run(process.execPath, ['--import', WALL_CLOCK, '-e', script], { env })
  const [now = 0, dated = 0, performanceMs = 0] = told.split(' ').map(Number)
  assert.ok(Math.abs(now - Date.now() - 3_600_000) < 5_000)
  assert.ok(Math.abs(dated - now) < 1_000)
  assert.ok(performanceMs < 10_000)
  await heal(lab)
  assert.equal(readFileSync(wallClockFile(lab, 'a'), 'utf8'), '0')
})

test('two labs run side by side with the same addresses and do not hear each other', async () => {
  await createMachines({ name: other })
  await inject(lab, { kind: 'isolate', member: 'a' })
  assert.equal(await passes(lab, { from: 'a', to: 'b' }), false)
  assert.equal(await passes(other, { from: 'a', to: 'b' }), true)
  await inject(other, { kind: 'power', host: 'b' })
  assert.equal(isPoweredOn(lab, 'b'), true)
  await heal(lab)
  await destroyMachines(other)
  assert.deepEqual(remainsOf(other), [])
  // Whoever asked for an address while nobody could answer asks again after a second.
  await until(() => passes(lab, { from: 'a', to: 'b' }))
})

test('a lab whose own process was killed half-way through its start is removed without a trace', async () => {
  const machine = join(import.meta.dirname, '../../infra/lab/machine.ts')
  const script = `import(${JSON.stringify(machine)}).then(m => m.createMachines({ name: ${JSON.stringify(other)}, diskMib: 64 }))`
  for (const afterMs of [150, 250, 400]) {
    const starting = spawn(process.execPath, ['-e', script], { stdio: 'ignore', detached: true })
    const ended = once(starting, 'close')
    await sleep(afterMs)
    starting.kill('SIGKILL')
    await ended
    // The command that it had begun comes to its own end, and may make something until then.
    await until(() => !isGroupThere(starting.pid!))
    await destroyMachines(other)
    assert.deepEqual(remainsOf(other), [], `killed after ${afterMs} ms`)
  }
})

/** Whether any process is left of a group. */
function isGroupThere(group: number): boolean {
  try {
    return process.kill(-group, 0)
  } catch {
    return false
  }
}

test('down leaves no process, namespace, mount or directory, also without its state file', async () => {
  await inject(lab, { kind: 'slow', from: 'a', to: 'b', delayMs: 10, jitterMs: 0, duplicatePercent: 0 })
  const pids = processesIn(groupPath(lab))
  assert.ok(pids.length > 3)
  writeFileSync(join(labPaths(lab).runDir, 'state.json'), 'not json')
  await destroyMachines(lab)
  assert.deepEqual(remainsOf(lab), [])
  assert.deepEqual(pids.filter(isAlive), [])
  assert.equal(existsSync(labPaths(lab).runDir), false)
  await destroyMachines(lab)
})

test('a program that is ended by a signal while it makes a lab leaves nothing of it', async () => {
  const name = `t-end-${process.pid}`.slice(0, 16)
  const program = spawn(process.execPath, [DEMO, '--name', name], { stdio: 'ignore' })
  try {
    await until(() => remainsOf(name).length > 0, 60_000)
    program.kill('SIGTERM')
    assert.deepEqual(await once(program, 'exit'), [143, null])
    assert.deepEqual(remainsOf(name), [])
  } finally {
    program.kill('SIGKILL')
    await destroyMachines(name)
  }
})
