/**
 * Lets programs outside a network namespace reach a server inside it: listens on a Unix socket, which is the file
 * system's and not the network's, and passes every connection on. Arguments: the socket's path, address, port.
 */

import { rmSync } from 'node:fs'
import { connect, createServer } from 'node:net'

const [path = '', address = '', port = ''] = process.argv.slice(2)
rmSync(path, { force: true })
createServer(near => {
  const far = connect({ host: address, port: Number(port) })
  for (const end of [near, far])
    end.on('error', () => {
      near.destroy()
      far.destroy()
    })
  near.pipe(far)
  far.pipe(near)
}).listen(path)
