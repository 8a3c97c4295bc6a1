// In the emulated machine: runs what the test asks for, one command after the other, over a virtio port. One JSON object
// a line: {id, argv, input, limitMs} comes, {id, code, stdout, stderr} goes.
import { spawnSync } from 'node:child_process'
import { openSync, readSync, writeSync } from 'node:fs'

const port = openSync('/dev/virtio-ports/commands', 'r+')
const into = Buffer.alloc(65536)
const pause = new Int32Array(new SharedArrayBuffer(4))
let rest = ''
writeSync(port, `${JSON.stringify({ ready: true })}\n`)
for (;;) {
  let length = 0
  try {
    length = readSync(port, into)
  } catch {
    // Nobody is at the other end.
  }
  if (length === 0) {
    Atomics.wait(pause, 0, 0, 50)
    continue
  }
  const lines = (rest + into.toString('utf8', 0, length)).split('\n')
  rest = lines.pop() ?? ''
  for (const line of lines) {
    const { id, argv, input, limitMs } = JSON.parse(line)
    const [program, ...args] = argv
    const done = spawnSync(program, args, { input, timeout: limitMs, encoding: 'utf8', maxBuffer: 4_000_000 })
    const stderr = `${done.stderr ?? ''}${done.error?.message ?? ''}`
    const answer = Buffer.from(`${JSON.stringify({ id, code: done.status, stdout: done.stdout ?? '', stderr })}\n`)
    for (let at = 0; at < answer.length; ) at += writeSync(port, answer, at)
  }
}
