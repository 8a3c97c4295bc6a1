import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { HOSTS, type HostName } from '../../infra/lab/addresses.ts'
import { run } from '../../infra/lab/exec.ts'
import { hostPaths, runOnHost } from '../../infra/lab/hosts.ts'
import { down, up } from '../../infra/lab/lab.ts'
import { readLabState } from '../../infra/lab/lab-state.ts'
import { lastWords, statuses, switchOver, until, untilProtected } from '../../infra/lab/pair.ts'
import { isAlive } from '../../infra/lab/processes.ts'
import { agentPaths, agentStatus } from '../../infra/lab/product.ts'
import { Trial } from '../../infra/lab/trial.ts'
import { otherNode } from '../../shared/protocol/nodes.ts'

/**
 * Row 26 of the fault matrix, on a disk that really hangs: a frozen ext4 file system blocks every write and fsync in the
 * kernel, beyond the reach of SIGKILL, until it is thawed. State, decisions, database and its log lie on it.
 */
const lab = `hang${process.pid}`
/** The agent's socket answers from memory; a machine with two cores and a whole lab is sometimes slow. */
const answerGapMaxMs = 1500
const takeoverLimitMs = 30_000
/** A backup that hangs is dropped within half a second in calm; wide for a busy machine. */
const stallMaxMs = 4000

/** What waits to be written goes to the disk first, which may take long: this process looks at answers meanwhile. */
async function freeze(host: HostName): Promise<() => void> {
  const { diskDir } = hostPaths(lab, host)
  await run('fsfreeze', ['--freeze', diskDir])
  let frozen = true
  return () => {
    if (frozen) execFileSync('fsfreeze', ['--unfreeze', diskDir])
    frozen = false
  }
}

/** How long a host's agent was at most without answering, from now until `stop` is called. */
function watchAnswers(host: HostName): { stop: () => Promise<number> } {
  let stopped = false
  let worstMs = 0
  const watching = (async () => {
    let answeredAt = performance.now()
    while (!stopped) {
      const answered = (await agentStatus(lab, host)) !== null
      worstMs = Math.max(worstMs, performance.now() - answeredAt)
      if (answered) answeredAt = performance.now()
      await sleep(20)
    }
  })()
  return {
    stop: async () => {
      stopped = true
      await watching
      return worstMs
    },
  }
}

/** More than limits.freeDiskMb of a lab host, 32. */
const stateVolumeMib = 96

/**
 * Puts a host's durable state on a volume of its own, below a running database, and starts its agent again. Mounted on the
 * host alone: it goes with the host.
 */
async function giveStateItsOwnVolume(host: HostName, trial: Trial): Promise<StateVolume> {
  const { stateDir } = agentPaths(lab, host)
  const pid = readLabState(lab).agentPid[host]
  if (pid === null) throw new Error(`host ${host} has no agent`)
  process.kill(pid, 'SIGTERM')
  while (isAlive(pid)) await sleep(2)
  const image = join(hostPaths(lab, host).runDir, 'state.img')
  const steps = [
    `truncate --size ${stateVolumeMib}M '${image}'`,
    `mkfs.ext4 -q -F -m 0 '${image}'`,
    `mkdir '${image}.d'`,
    `mount -o loop '${image}' '${image}.d'`,
    `cp -a '${stateDir}/.' '${image}.d/'`,
    `chmod --reference='${stateDir}' '${image}.d'`,
    `umount '${image}.d'`,
    `mount -o loop '${image}' '${stateDir}'`,
  ]
  await runOnHost(lab, host, ['sh', '-c', steps.join(' && ')])
  await trial.inject({ kind: 'start-agent', host })
  const does = (command: string): Promise<string> => runOnHost(lab, host, ['sh', '-c', command])
  let frozen = false
  return {
    freeze: async () => {
      await does(`fsfreeze --freeze '${stateDir}'`)
      frozen = true
    },
    thaw: async () => {
      if (frozen) await does(`fsfreeze --unfreeze '${stateDir}'`)
      frozen = false
    },
    fill: async () => {
      await does(`dd if=/dev/zero of='${stateDir}/filler' bs=4k 2>/dev/null; sync`)
    },
    empty: async () => {
      await does(`rm -f '${stateDir}/filler'`)
      // An agent whose register could not be written has ended, or is about to; systemd would start it again.
      let isOver = false
      const primary = untilProtected(lab).finally(() => {
        isOver = true
      })
      while (!isOver) {
        const agent = readLabState(lab).agentPid[host]
        if (agent === null || !isAlive(agent)) await trial.inject({ kind: 'start-agent', host })
        await sleep(50)
      }
      return primary
    },
  }
}
interface StateVolume {
  freeze: () => Promise<void>
  thaw: () => Promise<void>
  fill: () => Promise<void>
  /** Resolves to the primary, once the pair is protected with room again. */
  empty: () => Promise<HostName>
}

describe('a disk that hangs', { timeout: 300_000 }, () => {
  before(async () => {
    execFileSync('sh', ['-c', 'command -v fsfreeze'])
    await up({ name: lab, diskMib: 512 })
  })
  after(async () => {
    for (const host of HOSTS) {
      try {
        execFileSync('fsfreeze', ['--unfreeze', hostPaths(lab, host).diskDir], { stdio: 'ignore' })
      } catch {
        // It was not frozen.
      }
    }
    await down(lab)
  })

  test('under the backup: its agent goes on answering, the primary goes on without it, and it comes back', async t => {
    const primary = await untilProtected(lab)
    const backup = otherNode(primary)
    const trial = await Trial.begin(lab)
    const thaw = await freeze(backup)
    t.after(thaw)
    const answers = watchAnswers(backup)
    await until(takeoverLimitMs, 'the primary did not drop the backup', async () => {
      const status = await agentStatus(lab, primary)
      return status?.serving === true && !status.successor ? true : null
    })
    const step = await trial.measure('the backup’s disk hangs', () => sleep(2000))
    const gapMs = await answers.stop()
    assert.ok(gapMs < answerGapMaxMs, `the backup's agent did not answer for ${gapMs} ms`)
    assert.equal((await statuses(lab))[primary]?.primary, primary)
    thaw()
    assert.equal(await untilProtected(lab), primary)
    const verdict = await trial.end()
    if (step.outage.gapMs > stallMaxMs) t.diagnostic(lastWords(lab, 60))
    t.diagnostic(`gap ${Math.round(gapMs)} ms, outage after the drop ${Math.round(step.outage.gapMs)} ms`)
    assert.ok(step.outage.gapMs < stallMaxMs, `writes waited ${step.outage.gapMs} ms for a backup that was dropped`)
    assert.deepEqual(verdict.judgement.violations, [])
    assert.deepEqual([verdict.writes.a.lost, verdict.writes.b.lost], [[], []])
  })

  test('under the primary: its agent goes on answering, the other host takes over, and it follows after the thaw', async t => {
    const primary = await untilProtected(lab)
    const backup = otherNode(primary)
    const trial = await Trial.begin(lab)
    const answers = watchAnswers(primary)
    let thaw = (): void => {}
    const began = performance.now()
    try {
      await trial.measure('the primary’s disk hangs', async () => {
        thaw = await freeze(primary)
        t.after(thaw)
        await until(takeoverLimitMs, 'the backup did not take over', async () => {
          const status = await agentStatus(lab, backup)
          return status?.serving === true ? true : null
        })
      })
    } catch (error) {
      t.diagnostic(lastWords(lab, 30))
      throw error
    }
    t.diagnostic(`taken over after ${Math.round(performance.now() - began)} ms`)
    await sleep(2000)
    const gapMs = await answers.stop()
    assert.ok(gapMs < answerGapMaxMs, `the agent did not answer for ${gapMs} ms`)
    thaw()
    assert.equal(await untilProtected(lab), backup)
    const verdict = await trial.end()
    t.diagnostic(`gap ${Math.round(gapMs)} ms, outage ${Math.round(trial.steps[0]?.outage.gapMs ?? 0)} ms`)
    assert.deepEqual(verdict.judgement.violations, [])
    assert.deepEqual([verdict.writes.a.lost, verdict.writes.b.lost], [[], []])
  })

  test('only under the durable state, or full there alone: it is as a host whose disk hangs or is full, and the database goes on', async t => {
    const first = await untilProtected(lab)
    const host = otherNode(first)
    const trial = await Trial.begin(lab)
    const volume = await giveStateItsOwnVolume(host, trial)
    t.after(volume.thaw)
    const lap = (what: string): void => t.diagnostic(`${new Date().toISOString().slice(14, 23)} ${what}`)
    let answers: ReturnType<typeof watchAnswers> | null = null
    const answered = async (): Promise<void> => {
      const gapMs = (await answers?.stop()) ?? Number.POSITIVE_INFINITY
      assert.ok(gapMs < answerGapMaxMs, `the agent did not answer for ${gapMs} ms`)
    }
    t.after(() => answers?.stop())
    try {
      assert.equal(await untilProtected(lab), first)

      lap('hangs, backup')
      answers = watchAnswers(host)
      await volume.freeze()
      await until(takeoverLimitMs, 'the primary did not drop the backup', async () => {
        const status = await agentStatus(lab, first)
        return status?.serving === true && !status.successor ? true : null
      })
      await answered()
      await volume.thaw()
      assert.equal(await untilProtected(lab), first)

      lap('full, backup')
      await volume.fill()
      await until(takeoverLimitMs, 'the backup did not step back', async () => {
        const status = await agentStatus(lab, first)
        return status?.serving === true && !status.successor ? true : null
      })
      assert.equal(await volume.empty(), first)
      await switchOver(lab, first)
      assert.equal(await untilProtected(lab), host)

      lap('full, primary')
      await volume.fill()
      await until(takeoverLimitMs, 'the primary did not hand over', async () => {
        const status = await agentStatus(lab, first)
        return status?.serving === true ? true : null
      })
      assert.equal(await volume.empty(), first)
      await switchOver(lab, first)
      assert.equal(await untilProtected(lab), host)

      lap('hangs, primary')
      answers = watchAnswers(host)
      await volume.freeze()
      await until(takeoverLimitMs, 'the backup did not take over', async () => {
        const status = await agentStatus(lab, first)
        return status?.serving === true ? true : null
      })
      await answered()
      await volume.thaw()
      assert.equal(await untilProtected(lab), first)
      lap('over')
    } catch (error) {
      t.diagnostic(lastWords(lab, 40))
      throw error
    }
    const verdict = await trial.end()
    assert.deepEqual(verdict.judgement.violations, [])
    assert.deepEqual([verdict.writes.a.lost, verdict.writes.b.lost], [[], []])
  })
})
