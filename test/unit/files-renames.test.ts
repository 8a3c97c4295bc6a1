import assert from 'node:assert/strict'
import { existsSync, linkSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { afterEach, test } from 'node:test'
import koffi from 'koffi'
import { FilesWire, type WireOptions } from '../fixtures/files-wire.ts'
import { until } from '../fixtures/until.ts'

/** Names that get another file while what was before is sent: events are read after the fact. */

let wire: FilesWire | null = null
afterEach(async () => {
  await wire?.end()
  wire = null
})

type Prepare = Parameters<typeof FilesWire.make>[0]

async function made(prepare: Prepare, options?: WireOptions): Promise<FilesWire> {
  wire = await FilesWire.make(prepare, options)
  return wire
}

const nothing = (): void => undefined

const renameat2 = koffi
  .load('libc.so.6')
  .func('int renameat2(int fromDir, const char *from, int toDir, const char *to, uint flags)')

/** Each of two names gets what the other one has, in one step (rename(2), RENAME_EXCHANGE). */
const exchange = (a: string, b: string): void => assert.equal(renameat2(-100, a, -100, b, 2), 0)

/** In sync with one file; what is in `meanwhile` happens while names are sent, after the kernel's events were read and without a pause. */
async function madeWithHooks() {
  const held = { meanwhile: [] as (() => void)[], atMs: 0 }
  const mayBeSent = (): boolean => {
    held.meanwhile.shift()?.()
    return true
  }
  const now = (): number => (held.meanwhile.length > 0 ? held.atMs : performance.now())
  const it = await made(at => writeFileSync(at('f.tmp'), 'before'), { mayBeSent, now })
  const during = async (meanwhile: (() => void)[]): Promise<void> => {
    it.look()
    held.atMs = performance.now()
    held.meanwhile = meanwhile
    it.release()
    await until(() => held.meanwhile.length === 0)
    await it.barrier()
  }
  it.hold()
  return { it, during }
}

test('a name that is removed and made again while it is looked at, and then moved away, is not left behind on the backup', async () => {
  const { it, during } = await madeWithHooks()
  writeFileSync(it.path('a', 'first'), '')
  rmSync(it.path('a', 'f.tmp'))
  writeFileSync(it.path('a', 'last'), '')
  await during([
    () => writeFileSync(it.path('a', 'f.tmp'), 'again'),
    nothing,
    () => renameSync(it.path('a', 'f.tmp'), it.path('a', 'f')),
  ])
  assert.deepEqual(readdirSync(it.path('b')).sort(), ['f', 'first', 'last'])
})

test('a file that was moved away while another one took its name, which was sent, has its own contents under its new name', async () => {
  const { it, during } = await madeWithHooks()
  writeFileSync(it.path('a', 'first'), '')
  writeFileSync(it.path('a', 'f.tmp'), 'one')
  await during([
    () => {
      renameSync(it.path('a', 'f.tmp'), it.path('a', 'f'))
      writeFileSync(it.path('a', 'f.tmp'), 'two')
    },
    nothing,
  ])
  const there = ['f', 'f.tmp'].map(name => readFileSync(it.path('b', name), 'utf8'))
  assert.deepEqual(there, ['one', 'two'])
})

const contents = (it: FilesWire, names: readonly string[]): string[] =>
  names.map(name => (existsSync(it.path('b', name)) ? readFileSync(it.path('b', name), 'utf8') : 'not there'))

test('a file has its own contents under its new name although a link to another one took its old name meanwhile', async () => {
  const { it, during } = await madeWithHooks()
  it.release()
  writeFileSync(it.path('a', 'h'), 'linked')
  linkSync(it.path('a', 'h'), it.path('a', 'f'))
  await it.barrier()
  writeFileSync(it.path('a', 'x'), 'own')
  renameSync(it.path('a', 'x'), it.path('a', 'f'))
  await it.barrier()
  it.hold()
  writeFileSync(it.path('a', 'first'), '')
  writeFileSync(it.path('a', 'h'), 'linked 2')
  await during([
    () => {
      renameSync(it.path('a', 'f'), it.path('a', 'g'))
      linkSync(it.path('a', 'h'), it.path('a', 'f'))
    },
    nothing,
  ])
  assert.deepEqual(contents(it, ['f', 'g', 'h']), ['linked 2', 'own', 'linked 2'])
})

test('a name that was looked at before its rename was read keeps what another name of the file brought', async () => {
  const { it, during } = await madeWithHooks()
  it.release()
  writeFileSync(it.path('a', 'h'), 'one')
  linkSync(it.path('a', 'h'), it.path('a', 'f'))
  writeFileSync(it.path('a', 'g'), '')
  await it.barrier()
  it.hold()
  writeFileSync(it.path('a', 'first'), '')
  writeFileSync(it.path('a', 'g'), 'another')
  writeFileSync(it.path('a', 'h'), 'two')
  await during([() => renameSync(it.path('a', 'f'), it.path('a', 'g')), nothing])
  assert.deepEqual(contents(it, ['f', 'g', 'h']), ['not there', 'two', 'two'])
})

test('a rename that waits does not bring back what a file was before it was written to under another name', async () => {
  const it = await made(at => {
    writeFileSync(at('h'), 'one')
    linkSync(at('h'), at('f'))
  })
  for (const [from, to] of [
    ['f', 'g'],
    ['g', 'f'],
  ] as const) {
    renameSync(it.path('a', from), it.path('a', to))
    await it.barrier()
  }
  it.hold()
  writeFileSync(it.path('a', 'h'), 'two')
  renameSync(it.path('a', 'f'), it.path('a', 'g'))
  it.look()
  it.release()
  await it.barrier()
  assert.deepEqual(contents(it, ['f', 'g', 'h']), ['not there', 'two', 'two'])
})

test('two files that exchange their names have exchanged them on the backup', async () => {
  const it = await made(at => {
    for (const name of ['f', 'g']) writeFileSync(at(name), name)
  })
  exchange(it.path('a', 'f'), it.path('a', 'g'))
  await it.barrier()
  assert.deepEqual(contents(it, ['f', 'g']), ['g', 'f'])
})

test('two directories that exchange their names have exchanged them on the backup', async () => {
  const it = await made(at => {
    for (const name of ['d', 'e']) {
      mkdirSync(at(name))
      writeFileSync(at(name, 'f'), name)
    }
  })
  exchange(it.path('a', 'd'), it.path('a', 'e'))
  await it.barrier()
  assert.deepEqual(contents(it, ['d/f', 'e/f']), ['e', 'd'])
})

test('a file and a directory that exchange their names have exchanged them on the backup', async () => {
  const it = await made(at => {
    mkdirSync(at('d'))
    writeFileSync(at('d', 'f'), 'below')
    writeFileSync(at('e'), 'file')
  })
  exchange(it.path('a', 'd'), it.path('a', 'e'))
  await it.barrier()
  assert.deepEqual(contents(it, ['d', 'e/f']), ['file', 'below'])
})

test('a name that is given on and then the way back leaves each file its contents', async () => {
  const it = await made(at => {
    for (const name of ['f', 'g']) writeFileSync(at(name), name)
  })
  it.hold()
  renameSync(it.path('a', 'f'), it.path('a', 'g'))
  renameSync(it.path('a', 'g'), it.path('a', 'h'))
  writeFileSync(it.path('a', 'g'), 'new')
  renameSync(it.path('a', 'g'), it.path('a', 'f'))
  it.look()
  it.release()
  await it.barrier()
  assert.deepEqual(contents(it, ['f', 'g', 'h']), ['new', 'not there', 'f'])
})

test('a directory that is moved to and fro before anybody looks has what it had', async () => {
  const it = await made(at => {
    mkdirSync(at('d'))
    for (const name of ['f', 'g']) writeFileSync(at('d', name), name)
  })
  it.hold()
  for (const [from, to] of [
    ['d', 'e'],
    ['e', 'd'],
    ['d', 'e'],
  ] as const) {
    renameSync(it.path('a', from), it.path('a', to))
  }
  rmSync(it.path('a', 'e', 'f'))
  it.look()
  it.release()
  await it.barrier()
  assert.deepEqual(readdirSync(it.path('b')), ['e'])
  assert.deepEqual(readdirSync(it.path('b', 'e')), ['g'])
})
