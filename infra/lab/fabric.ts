/** Makes the fabric be as the fault state says: its ruleset, and the process that carries slow directions. */

import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { hardwareAddress, labPaths, namespacePath, portName } from './addresses.ts'
import { createGroup } from './control-groups.ts'
import { run, startDetached } from './exec.ts'
import { fabricRuleset, lossOn, slowDirections } from './fabric-faults.ts'
import type { LabState } from './lab-state.ts'
import { isAlive, signal } from './processes.ts'
import type { WireSpec } from './slow-wire.ts'

const HERE = import.meta.dirname
/** The group of the lab's own processes: the wire, observers, the writer. */
export const TOOLS_GROUP = 'tools'
/** A start of Node, on a busy machine. */
const WIRE_DEADLINE_MS = 30_000

/** Starts one of the lab's own programs in a member's network (or the fabric's), outside of every host. */
export async function startTool(
  lab: string,
  where: Parameters<typeof namespacePath>[1],
  command: readonly string[],
  log: string,
): Promise<number> {
  const group = createGroup(lab, TOOLS_GROUP)
  const inside = [`--net=${namespacePath(lab, where)}`, join(HERE, 'join-group'), group, ...command]
  return startDetached('nsenter', inside, { logFile: join(labPaths(lab).runDir, 'log', log), cwd: '/' })
}

/** The pinned Node with the flags this process has. */
export function nodeCommand(script: string, args: readonly string[] = []): string[] {
  return [process.execPath, '--disable-warning=ExperimentalWarning', script, ...args]
}

function wireSpecs(state: LabState): WireSpec[] {
  return slowDirections(state.fabric).map(slow => ({
    fromPort: portName(slow.from, slow.link),
    toPort: portName(slow.to, slow.link),
    toAddress: hardwareAddress(slow.to, slow.link),
    delayMs: slow.delayMs,
    jitterMs: slow.jitterMs,
    duplicatePerMille: slow.duplicatePerMille,
    lossPerMille: lossOn(state.fabric, slow),
  }))
}

/** Brings the running fabric to `state.fabric`; the state's `wirePid` is updated. */
export async function applyFabric(state: LabState): Promise<void> {
  // A host that is off has no port to carry from or to; its power-on applies the fabric again.
  const specs = wireSpecs(state).filter(
    spec => !state.off.some(member => `${spec.fromPort} ${spec.toPort}`.includes(`${member}-`)),
  )
  // The new wire carries before the bridge stops to, and the old one goes last: a change of what is slow must not be an
  // interruption. Some frames arrive twice meanwhile.
  const wirePid = specs.length === 0 ? null : await startWire(state.name, specs)
  await run('nsenter', [`--net=${namespacePath(state.name, 'net')}`, 'nft', '-f', '-'], {
    input: fabricRuleset(state.fabric),
  })
  if (state.wirePid !== null) signal([state.wirePid], 'SIGKILL')
  state.wirePid = wirePid
}

/** Resolves to its process id once it carries. */
async function startWire(lab: string, specs: readonly WireSpec[]): Promise<number> {
  const log = 'slow-wire.log'
  const logFile = join(labPaths(lab).runDir, 'log', log)
  const before = readLog(logFile)
  const pid = await startTool(lab, 'net', nodeCommand(join(HERE, 'slow-wire.ts'), [JSON.stringify(specs)]), log)
  const deadline = performance.now() + WIRE_DEADLINE_MS
  while (!readLog(logFile).slice(before.length).includes('carrying')) {
    if (performance.now() > deadline || !isAlive(pid)) {
      throw new Error(`The slow wire did not start: ${readLog(logFile).slice(before.length)}`)
    }
    await sleep(5)
  }
  return pid
}

function readLog(file: string): string {
  try {
    return readFileSync(file, 'utf8')
  } catch {
    return ''
  }
}
