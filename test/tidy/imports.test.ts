import assert from 'node:assert/strict'
import { dirname, join, normalize } from 'node:path'
import { test } from 'node:test'
import { importsOf, type SourceFile, typescriptFiles } from './source.ts'

/**
 * Which room may use which, and why. A newcomer can then tell from a file's folder what it can depend on, and the core
 * stays what the agent, the witness, the control plane and the simulation can all run.
 */
interface Direction {
  room: string
  /** Rooms of ours besides itself. */
  mayUse: readonly string[]
  why: string
}

const directions: readonly Direction[] = [
  {
    room: 'shared/protocol/',
    mayUse: ['shared/assert.ts', 'shared/lsn.ts', 'shared/figures.ts'],
    why: 'the core decides from plain data alone',
  },
  { room: 'shared/', mayUse: [], why: 'both sides agree on it, so it knows neither' },
  {
    room: 'control-plane/',
    mayUse: ['shared/'],
    why: 'it talks to agents by what shared/contract says, never through their code',
  },
  {
    room: 'node-agent/',
    mayUse: ['shared/'],
    why: 'a host survives without the control plane, so it cannot need its code',
  },
  { room: 'infra/', mayUse: ['shared/', 'node-agent/', 'control-plane/'], why: 'it puts the product together' },
]

const files = typescriptFiles()

function targetOf(file: SourceFile, specifier: string): string | null {
  return specifier.startsWith('.') ? normalize(join(dirname(file.path), specifier)) : null
}

for (const { room, mayUse, why } of directions) {
  test(`${room} uses ${mayUse.length === 0 ? 'nothing of ours outside itself' : `only ${mayUse.join(', ')} beside itself`}: ${why}`, () => {
    const wrong = files
      .filter(file => file.path.startsWith(room))
      .flatMap(file =>
        importsOf(file)
          .map(specifier => targetOf(file, specifier))
          .filter(target => target !== null && ![room, ...mayUse].some(one => target.startsWith(one)))
          .map(target => `${file.path} imports ${target}`),
      )
    assert.deepEqual(wrong, [])
  })
}

test('shared/protocol uses no package and no module of Node: it has to run in a worker, and in a simulation', () => {
  const wrong = files
    .filter(file => file.path.startsWith('shared/protocol/'))
    .flatMap(file =>
      importsOf(file)
        .filter(specifier => !specifier.startsWith('.'))
        .map(specifier => `${file.path} imports ${specifier}`),
    )
  assert.deepEqual(wrong, [])
})

test('shared/protocol has no clock, no randomness, no I/O and no promises: time and chance come in with the event', () => {
  const forbidden =
    /\b(Date\.now|new Date|Math\.random|performance\.|crypto\.|setTimeout|setInterval|queueMicrotask|process\.|console\.|fetch\(|await |async |Promise<)/
  const wrong = files
    .filter(file => file.path.startsWith('shared/protocol/'))
    .flatMap(file =>
      file.lines
        .map((line, index) => ({ line, where: `${file.path}:${index + 1}` }))
        .filter(({ line }) => forbidden.test(line.replace(/\/\/.*$|^\s*\*.*$|\/\*.*\*\//, '')))
        .map(({ line, where }) => `${where} ${line.trim()}`),
    )
  assert.deepEqual(wrong, [])
})

test('the product does not use what is only for tests', () => {
  const product = /^(shared|control-plane|node-agent)\//
  const wrong = files
    .filter(file => product.test(file.path))
    .flatMap(file =>
      importsOf(file)
        .filter(specifier => /(^|\/)(test|infra)\//.test(targetOf(file, specifier) ?? ''))
        .map(specifier => `${file.path} imports ${specifier}`),
    )
  assert.deepEqual(wrong, [])
})
