import assert from 'node:assert/strict'
import { test } from 'node:test'
import { listenFor, tellNews } from '../../control-plane/services/operation/news.ts'

test('whoever waits for an operation hears what happens to it, also what happened just before he waited, and nothing of others', async () => {
  const [one, two, other] = [listenFor('operation-1'), listenFor('operation-1'), listenFor('operation-2')]
  let heardOther = false
  void other.news().then(() => {
    heardOther = true
  })
  tellNews('operation-1')
  await Promise.all([one.news(), two.news()])
  let again = false
  const waiting = one.news().then(() => {
    again = true
  })
  await Promise.resolve()
  assert.equal(again, false, 'news is heard once')
  two.end()
  tellNews('operation-1')
  await waiting
  assert.equal(heardOther, false)
  for (const each of [one, other]) each.end()
  tellNews('operation-1')
})
