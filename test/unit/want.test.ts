import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { join } from 'node:path'
import { test } from 'node:test'
import { exec, execLines } from '../../node-agent/exec.ts'
import { exampleConfig } from './example-config.ts'

/** What a host without memory or descriptors refuses is an outcome, and ends nobody. */

const root = join(import.meta.dirname, '../..')
/** A single argument of a program has 128 KiB at most (execve(2)): one of the refusals that Node throws. */
const tooLong = 'x'.repeat(200_000)

test('a program that the kernel does not start at all is an outcome, as one that fails', async () => {
  const options = { limitMs: 5000 }
  const results = [
    await exec(['/bin/true', tooLong], options),
    await execLines(['/bin/true', tooLong], { ...options, from: 'stdout', onLine: () => {} }),
  ]
  for (const result of results) {
    assert.ok(!result.ok && !result.killed && result.code === null)
    assert.equal(result.why, '/bin/true spawn E2BIG')
  }
})

const descriptorsMax = 64
const program = `
  import { openSync } from 'node:fs'
  import { parseConfig } from '${root}/node-agent/config.ts'
  import { exec, execLines } from '${root}/node-agent/exec.ts'
  import { notifier } from '${root}/node-agent/drivers/notify.ts'
  import { UplinkDriver } from '${root}/node-agent/drivers/uplink-port.ts'
  import { VipDriver } from '${root}/node-agent/drivers/vip-port.ts'
  const config = parseConfig(process.argv.at(-1), 'the test')
  const manager = notifier({ NOTIFY_SOCKET: '@understudy-test-nobody' })
  const uplink = new UplinkDriver({ interface: 'lo', gateway: '127.0.0.2' })
  const vip = new VipDriver({ ...config, vips: [{ ...config.vips[0], interface: 'lo' }] })
  try {
    for (;;) openSync('/dev/null')
  } catch {}
  manager.alive()
  const options = { limitMs: 5000 }
  console.log(JSON.stringify({
    exec: (await exec(['/bin/true'], options)).ok,
    execLines: (await execLines(['/bin/true'], { ...options, from: 'stdout', onLine: () => {} })).ok,
    uplink: uplink.tick(1).up,
    vips: (await vip.probe()).length,
    clients: vip.clients().length,
  }))
  process.exit(0)
`

test('an agent without a free descriptor goes on with what it knows', () => {
  const node = [process.execPath, '--disable-warning=ExperimentalWarning', '--input-type=module', '--eval', program]
  const limited = ['sh', '-c', `ulimit -n ${descriptorsMax} && exec "$@"`, 'sh', ...node, '--']
  const [file = '', ...args] = [...limited, JSON.stringify(exampleConfig)]
  const ran = spawnSync(file, args, { encoding: 'utf8', timeout: 60_000 })
  assert.equal(ran.status, 0, ran.stderr)
  assert.deepEqual(JSON.parse(ran.stdout), { exec: false, execLines: false, uplink: true, vips: 1, clients: 0 })
})
