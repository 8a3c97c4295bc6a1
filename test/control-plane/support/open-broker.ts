import { chmodSync, mkdirSync, writeFileSync } from 'node:fs'
import { connect } from 'node:net'
import { join } from 'node:path'
import { freePort, startChild } from '../../../control-plane/entry/local/child.ts'
import { isRoot, systemUser } from '../../../control-plane/entry/local/users.ts'

/** Debian's Mosquitto on loopback without TLS and for everybody: the way to the broker, in runtimes that can't bring their own. */
export async function openBroker(folder: string): Promise<{ url: string; close: () => Promise<void> }> {
  mkdirSync(folder, { recursive: true, mode: 0o755 })
  const port = await freePort()
  const file = join(folder, 'mosquitto.conf')
  writeFileSync(file, `listener ${port} 127.0.0.1\nallow_anonymous true\npersistence false\n`)
  chmodSync(file, 0o644)
  const user = isRoot() ? (systemUser('mosquitto') ?? systemUser('nobody')) : null
  const child = startChild('mosquitto', ['-c', file], {
    user,
    deathSignal: 'TERM',
    env: { PATH: `${process.env.PATH}:/usr/sbin` },
  })
  for (let tries = 0; !(await isOpen(port)); tries++) {
    if (tries > 300 || child.process.exitCode !== null) throw new Error(`no broker: ${child.lastWords()}`)
    await new Promise(resolve => setTimeout(resolve, 50))
  }
  return { url: `mqtt://127.0.0.1:${port}`, close: () => child.stop('SIGTERM') }
}

const isOpen = (port: number): Promise<boolean> =>
  new Promise(resolve => {
    const socket = connect({ host: '127.0.0.1', port }, () => {
      socket.destroy()
      resolve(true)
    })
    socket.once('error', () => resolve(false))
  })
