/**
 * What the agent's core does between two heartbeats, for `bench:adapters`: a loop of 10 ms with the core's real-time
 * priority that reads addresses from the kernel as its housekeeping does. Tells how late each turn was when it is asked to.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { runRealTime } from '../../node-agent/kernel/libc.ts'
import { RouteSocket } from '../../node-agent/kernel/rtnetlink.ts'

/** As in node-agent/main.ts. */
const realTimePriority = 10
const turnMs = 10
const housekeepingTurns = 10

const route = new RouteSocket()
runRealTime(realTimePriority)
let late: number[] = []
let netlinkMs: number[] = []
process.on('message', () => {
  process.send?.({ late, netlinkMs })
  late = []
  netlinkMs = []
})
process.on('disconnect', () => process.exit(0))
process.send?.('ready')
for (let turn = 0; ; turn += 1) {
  const due = performance.now() + turnMs
  await sleep(turnMs)
  late.push(Math.max(0, performance.now() - due))
  if (turn % housekeepingTurns !== 0) continue
  const asked = performance.now()
  route.addresses('lo')
  netlinkMs.push(performance.now() - asked)
}
