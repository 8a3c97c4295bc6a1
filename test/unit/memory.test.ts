import assert from 'node:assert/strict'
import { test } from 'node:test'
import { untouchedFileRanges } from '../../node-agent/kernel/memory.ts'

const mapping = (head: string, kb: { rss?: number; anonymous?: number; swap?: number; locked?: number }): string =>
  [
    head,
    'Size:                800 kB',
    `Rss:                 ${kb.rss ?? 400} kB`,
    `Anonymous:           ${kb.anonymous ?? 0} kB`,
    `Swap:                ${kb.swap ?? 0} kB`,
    `Locked:              ${kb.locked ?? 0} kB`,
    'VmFlags: rd ex mr mw me sd ',
    '',
  ].join('\n')
const code = '00400000-02f03000 r-xp 01000000 fe:00 1581 /usr/bin/node'

test('pages of a file that nobody here can have changed are given back, and no others', () => {
  const smaps = [
    mapping(code, {}),
    mapping('02f03000-02f05000 r--p 02b03000 fe:00 1581 /usr/bin/node', {}),
    // Written at its start and protected afterwards: what is in it is nowhere else.
    mapping('02f05000-02f07000 r--p 02b05000 fe:00 1581 /usr/bin/node', { anonymous: 8 }),
    mapping('02f07000-02f09000 r--p 02b07000 fe:00 1581 /usr/bin/node', { swap: 8 }),
    mapping('02f09000-02f0b000 r-xp 02b09000 fe:00 1581 /usr/bin/node', { locked: 8 }),
    mapping('02f0b000-02f0d000 rw-p 02b0b000 fe:00 1581 /usr/bin/node', {}),
    mapping('02f0d000-02f0f000 r--s 02b0d000 fe:00 1581 /var/lib/shared', {}),
    mapping('02f0f000-02f11000 r-xp 00000000 00:00 0 [vdso]', {}),
    mapping('02f11000-02f13000 r--p 00000000 00:00 0', {}),
    mapping('02f13000-02f15000 r-xp 00000000 00:19 12 /run/#12 (deleted)', {}),
    mapping('02f15000-02f17000 r-xp 00000000 fe:00 99 /lib/libc.so.6', { rss: 0 }),
  ].join('')
  assert.deepEqual(
    untouchedFileRanges(smaps).map(({ start, end }) => [start.toString(16), end.toString(16)]),
    [
      ['400000', '2f03000'],
      ['2f03000', '2f05000'],
      ['2f13000', '2f15000'],
    ],
  )
})

test('where the kernel does not tell of a mapping what it has of its own, nothing of it is given back', () => {
  assert.deepEqual(untouchedFileRanges(`${code}\nRss:                 400 kB\n`), [])
})
