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
const frames = new FrameReader()
process.stdout.write('ready\n')

for await (const chunk of process.stdin) {
  for (const frame of frames.push(chunk as Buffer)) {
    try {
      await writer.write(name, frame.bytes)
      process.stdout.write(`${frame.number}\n`)
    } catch (fault) {
      // No second try: after a failed fsync nothing that this disk says can be believed.
      process.stdout.write(`${frame.number} ${writerFault(fault)}\n`)
      process.exit(1)
    }
  }
}
