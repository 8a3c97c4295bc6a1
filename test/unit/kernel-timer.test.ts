import assert from 'node:assert/strict'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { KernelTimer } from '../../node-agent/kernel/timer.ts'

test('a timer fires once, not before its time, and what it leads to goes on as after any event', async () => {
  const began = performance.now()
  const fired = await new Promise<number>(resolve => {
    const timer = new KernelTimer(() => {
      void Promise.resolve().then(() => {
        timer.clear()
        resolve(performance.now() - began)
      })
    })
    timer.set(20.5)
  })
  assert.ok(fired >= 20.5, `after ${fired} ms`)
})

test('one that is moved fires at the new time alone, and one that is cleared not at all', async () => {
  let fired = 0
  const timer = new KernelTimer(() => fired++)
  timer.set(1)
  timer.set(60_000)
  await sleep(50)
  assert.equal(fired, 0)
  timer.set(0)
  await sleep(50)
  assert.equal(fired, 1)
  timer.set(1)
  timer.clear()
  await sleep(50)
  assert.equal(fired, 1)
})

test('it may be set again, or ended, from within', async () => {
  let fired = 0
  const timer = new KernelTimer(() => {
    fired++
    if (fired < 3) timer.set(1)
    else timer.clear()
  })
  timer.set(1)
  while (fired < 3) await sleep(5)
  await sleep(30)
  assert.equal(fired, 3)
})
