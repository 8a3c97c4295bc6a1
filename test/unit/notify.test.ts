import assert from 'node:assert/strict'
import { test } from 'node:test'
import { notifier } from '../../node-agent/drivers/notify.ts'
import {
  AF_UNIX,
  bindSocket,
  closeFd,
  openSocket,
  SOCK_DGRAM,
  tryReceive,
  unixAddress,
} from '../../node-agent/kernel/libc.ts'

test('a program that begins anew asks its manager for the time of a start, and for its own watchdog again when it is ready', t => {
  const path = `@understudy-test-${process.pid}`
  const fd = openSocket({ domain: AF_UNIX, type: SOCK_DGRAM, protocol: 0 })
  t.after(() => closeFd(fd))
  bindSocket(fd, unixAddress(path))
  const heard = (): string => {
    const into = Buffer.alloc(200)
    return into.toString('utf8', 0, Math.max(0, tryReceive(fd, into)))
  }
  const watched = notifier({ NOTIFY_SOCKET: path, WATCHDOG_USEC: '5000000', WATCHDOG_PID: String(process.pid) })
  watched.beginsAnew()
  assert.equal(heard(), 'WATCHDOG_USEC=60000000')
  watched.ready('well')
  assert.equal(heard(), 'READY=1\nSTATUS=well\nWATCHDOG_USEC=5000000')
  const unwatched = notifier({ NOTIFY_SOCKET: path })
  unwatched.beginsAnew()
  unwatched.ready('well')
  assert.equal(heard(), 'READY=1\nSTATUS=well')
})
