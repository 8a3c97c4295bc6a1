import assert from 'node:assert/strict'
import { test } from 'node:test'
import { causeOf, unitOf } from '../../node-agent/stopping.ts'

const unit = 'understudy.service'

test('a unit that systemd restarts is told from one that it stops by the job it has queued', () => {
  const cause = (jobs: string, state = 'running'): string => causeOf({ state, jobs, unit })
  assert.equal(cause('412 understudy.service restart running\n'), 'agentRestart')
  assert.equal(cause('412 understudy.service stop running\n'), 'agentStop')
  assert.equal(cause('412 understudy-witness.service restart running\n'), 'agentStop')
  assert.equal(cause(''), 'agentStop', 'somebody sent the signal by hand')
  assert.equal(cause('', 'degraded\n'), 'agentStop')
  assert.equal(cause('412 understudy.service stop running\n', 'stopping\n'), 'hostShutdown')
})

test('the unit of a process is the innermost service of its cgroup, in both versions of cgroups', () => {
  assert.equal(unitOf('0::/system.slice/understudy.service\n'), unit)
  assert.equal(unitOf('0::/system.slice/understudy.service/agent\n'), unit)
  assert.equal(unitOf('4:memory:/\n1:name=systemd:/system.slice/understudy.service\n0::/\n'), unit)
  assert.equal(unitOf('0::/machine.slice/lab.service/payload/system.slice/understudy.service\n'), unit)
  assert.equal(unitOf('0::/user.slice/session-1.scope\n'), null)
  assert.equal(unitOf('0::/\n'), null)
})
