/**
 * Runs at real-time priority on one processor, ends children with several threads, and prints the longest time in ms in
 * which its loop stood still at each end. `reaping-child.ts calmly|plainly`.
 */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readdirSync, readFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { takeEndCalmly } from '../../../node-agent/kernel/child-end.ts'
import { runRealTime } from '../../../node-agent/kernel/libc.ts'

const ends = 5
const stood: number[] = []
runRealTime(10)
for (let i = 0; i < ends; i++) {
  const child = spawn(process.execPath, ['--eval', 'setInterval(() => {}, 1000)'], { stdio: 'ignore' })
  if (process.argv[2] === 'calmly') takeEndCalmly(child)
  await sleep(500)
  // As whoever lists the threads of all processes does.
  for (const thread of readdirSync(`/proc/${child.pid}/task`))
    for (const file of ['stat', 'comm']) readFileSync(`/proc/${child.pid}/task/${thread}/${file}`)
  const gone = once(child, 'exit')
  let longest = 0
  let last = performance.now()
  const beat = setInterval(() => {
    longest = Math.max(longest, performance.now() - last)
    last = performance.now()
  }, 5)
  child.kill('SIGKILL')
  await gone
  await sleep(20)
  clearInterval(beat)
  stood.push(Math.round(longest))
}
process.stdout.write(`${JSON.stringify(stood)}\n`)
