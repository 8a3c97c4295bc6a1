import { constants, openSync, readSync, rmSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { releaseStartMemory } from '../kernel/memory.ts'
import { replaceSync } from './atomic-write.ts'
import { FrameReader, writerFault } from './writer-frames.ts'

/**
 * The child that touches the disk, so that a hanging disk stops this process and never the agent's loop.
 *
 * A child and not a worker thread: a thread in an uninterruptible fsync keeps its whole process from ending, even after
 * SIGKILL, with every socket, lock and nftables table that it owns. A dead agent must let go of all of them at once.
 *
 * It has nothing else to do and so waits in its system calls: no loop, no threads, and half of their memory.
 *
 * Arguments: folder, file name. Standard input: frames of a number and the bytes to write. Standard output: the number
 * and, when the write failed, why. It ends when its input ends: with the agent, whatever became of it.
 */
const [folder, name] = process.argv.slice(-2)
if (folder === undefined || name === undefined) throw new Error('usage: writer <folder> <name>')
// The agent decides about signals for both, and needs this process until its last write: a stop of the whole unit or a
// terminal's Ctrl-C must not take it first. The handlers never run, and their being there is enough.
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => {})

const stdin = 0
const stdout = 1
const folderFd = openSync(folder, constants.O_RDONLY | constants.O_DIRECTORY)
const replace = (file: string, bytes: Uint8Array): void => replaceSync({ folder, folderFd, name: file, bytes })

/** The agent is gone while a write was running: nobody is left to tell. */
function tell(line: string): void {
  try {
    writeSync(stdout, `${line}\n`)
  } catch {
    process.exit(0)
  }
}

/** Blocks kept for the time when the volume is full: a host must be able to write down that it gives its place up. */
const spareName = `${name}.spare`
const spareBytes = 128 * 1024
function keepSpare(): void {
  try {
    replace(spareName, Buffer.alloc(spareBytes, 1))
  } catch {
    // There is none while the volume is full.
  }
}

/** A full disk is no broken disk: without the spare there is room for what are some hundred bytes. */
function write(bytes: Uint8Array): 'wrote' | 'used the spare' {
  try {
    replace(name!, bytes)
    return 'wrote'
  } catch (fault) {
    if ((fault as NodeJS.ErrnoException).code !== 'ENOSPC') throw fault
    rmSync(join(folder!, spareName), { force: true })
    rmSync(join(folder!, `${spareName}.tmp`), { force: true })
    replace(name!, bytes)
    return 'used the spare'
  }
}

keepSpare()
tell('ready')
releaseStartMemory()

const frames = new FrameReader()
const chunk = Buffer.alloc(64 * 1024)
for (let length = readSync(stdin, chunk); length > 0; length = readSync(stdin, chunk)) {
  for (const frame of frames.push(Buffer.from(chunk.subarray(0, length)))) {
    try {
      const how = write(frame.bytes)
      tell(`${frame.number}`)
      if (how === 'used the spare') keepSpare()
    } catch (fault) {
      // No second try: after a failed fsync nothing that this disk says can be believed.
      tell(`${frame.number} ${writerFault(fault)}`)
      process.exit(1)
    }
  }
}
process.exit(0)
