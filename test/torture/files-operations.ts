import { randomBytes } from 'node:crypto'
import {
  appendFileSync,
  chmodSync,
  closeSync,
  linkSync,
  mkdirSync,
  openSync,
  readdirSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  utimesSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { join } from 'node:path'
import { Random } from '../simulation/random.ts'

/**
 * What one writer does to a tree: a program of its own, so that several run at once. Arguments: tree, seed, name. It
 * works in its own part of the tree and in a part that all share, and says each barrier it is asked for: a line
 * `mark NUMBER` on stdin is answered by writing a file of that number and by `marked NUMBER`.
 */
const [tree = '', seed = '0', name = 'w'] = process.argv.slice(2)
const random = new Random(Number(seed))
const pick = <T>(list: readonly T[]): T => random.pick(list)

const folders = (): string[] => {
  const found = [join(tree, 'shared'), join(tree, name)]
  for (let at = 0; at < found.length && found.length < 40; at += 1) {
    for (const entry of readdirSync(found[at]!, { withFileTypes: true }))
      if (entry.isDirectory()) found.push(join(found[at]!, entry.name))
  }
  return found
}
const someName = (): string => `${pick(['f', 'g', 'ü', 'long name ', '.hidden'])}${random.below(30)}`
const inside = (): string => join(pick(folders()), someName())
const existing = (): string => {
  const folder = pick(folders())
  const names = readdirSync(folder).filter(one => !one.startsWith('mark-'))
  return join(folder, names.length === 0 ? someName() : pick(names))
}

const operations: readonly [weight: number, act: () => void][] = [
  [12, () => writeFileSync(inside(), randomBytes(random.below(9000)))],
  [1, () => writeFileSync(inside(), Buffer.alloc(1_200_000 + random.below(1_000_000), random.below(255)))],
  [6, () => appendFileSync(existing(), randomBytes(random.below(3000)))],
  [4, overwrite],
  [3, () => truncateSync(existing(), random.below(2_000_000))],
  [5, replace],
  [8, () => renameSync(existing(), inside())],
  [5, () => mkdirSync(inside())],
  [5, () => rmSync(existing(), { recursive: random.below(3) === 0 })],
  [3, () => linkSync(existing(), inside())],
  [3, () => symlinkSync(someName(), inside())],
  [3, () => chmodSync(existing(), 0o600 + random.below(0o177))],
  [2, () => utimesSync(existing(), random.below(2_000_000_000), random.below(2_000_000_000))],
]

function overwrite(): void {
  const path = existing()
  const fd = openSync(path, 'r+')
  writeSync(fd, randomBytes(500), 0, 500, random.below(Math.max(1, statSync(path).size)))
  closeSync(fd)
}

function replace(): void {
  const path = existing()
  const temporary = join(tree, name, `.tmp${random.below(5)}`)
  writeFileSync(temporary, randomBytes(random.below(20_000)))
  renameSync(temporary, path)
}

const total = operations.reduce((sum, [weight]) => sum + weight, 0)
function step(): void {
  let at = random.below(total)
  for (const [weight, act] of operations) {
    at -= weight
    if (at >= 0) continue
    try {
      act()
    } catch (error) {
      // Another writer was faster, or the choice made no sense (a directory into itself): also a way to live.
      if (!(error instanceof Error) || !('code' in error)) throw error
    }
    return
  }
}

for (const folder of ['shared', name]) mkdirSync(join(tree, folder), { recursive: true })
let isOpen = true
let rest = ''
process.stdin.setEncoding('utf8')
process.stdin.on('data', (text: string) => {
  const lines = (rest + text).split('\n')
  rest = lines.pop() ?? ''
  for (const line of lines) {
    const number = line.slice('mark '.length)
    writeFileSync(join(tree, name, `mark-${number}`), number)
    process.stdout.write(`marked ${number}\n`)
  }
})
process.stdin.on('end', () => {
  isOpen = false
})

async function main(): Promise<void> {
  while (isOpen) {
    for (let count = 1 + random.below(8); count > 0; count -= 1) step()
    await new Promise(resolve => setTimeout(resolve, 20 + random.below(120)))
  }
}
await main()
