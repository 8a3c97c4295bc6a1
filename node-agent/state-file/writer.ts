import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import { openFolderWriter } from './atomic-write.ts'
import { FrameReader, writerFault } from './writer-frames.ts'

/**
 * The child that touches the disk, so that a hanging disk stops this process and never the agent's loop.
 *
 * A child and not a worker thread: a thread in an uninterruptible fsync keeps its whole process from ending, even after
 * SIGKILL, with every socket, lock and nftables table that it owns. A dead agent must let go of all of them at once.
 *
 * Arguments: folder, file name. Standard input: frames of a number and the bytes to write. Standard output: the number
 * and, when the write failed, why. It ends when its input ends: with the agent, whatever became of it.
 */
const [folder, name] = process.argv.slice(-2)
if (folder === undefined || name === undefined) throw new Error('usage: writer <folder> <name>')
// The agent decides about signals for both, and needs this process until its last write: a stop of the whole unit or a
// terminal's Ctrl-C must not take it first.
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => {})
// The agent is gone while a write was running: nobody is left to tell.
process.stdout.on('error', () => process.exit(0))

const writer = await openFolderWriter(folder)
/** Blocks kept for the time when the volume is full: a host must be able to write down that it gives its place up. */
const spareName = `${name}.spare`
const spareBytes = 128 * 1024
const keepSpare = (): Promise<void> => writer.write(spareName, Buffer.alloc(spareBytes, 1)).catch(() => {})
await keepSpare()

/** A full disk is no broken disk: without the spare there is room for what are some hundred bytes. */
async function write(bytes: Uint8Array): Promise<void> {
  try {
    await writer.write(name!, bytes)
  } catch (fault) {
    if ((fault as NodeJS.ErrnoException).code !== 'ENOSPC') throw fault
    await rm(join(folder!, spareName), { force: true })
    await rm(join(folder!, `${spareName}.tmp`), { force: true })
    await writer.write(name!, bytes)
    void keepSpare()
  }
}
const frames = new FrameReader()
process.stdout.write('ready\n')

for await (const chunk of process.stdin) {
  for (const frame of frames.push(chunk as Buffer)) {
    try {
      await write(frame.bytes)
      process.stdout.write(`${frame.number}\n`)
    } catch (fault) {
      // No second try: after a failed fsync nothing that this disk says can be believed.
      process.stdout.write(`${frame.number} ${writerFault(fault)}\n`)
      process.exit(1)
    }
  }
}
