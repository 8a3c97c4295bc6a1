/** Memory that a process needed for its start alone, given back. */
import { readFileSync } from 'node:fs'
import koffi from 'koffi'

const libc = koffi.load('libc.so.6')
const mallocTrim = libc.func('int malloc_trim(size_t pad)')
const madvise = libc.func('int madvise(uint64 address, size_t length, int advice)')

const MADV_DONTNEED = 4

/**
 * What the C library keeps of what was freed (malloc_trim(3)), and the pages of files that only the start touched: most of
 * Node's own code and tables. They stay in the page cache, which the kernel may have back at once; what is still used is
 * mapped again with the next touch, for some microseconds. Takes a few milliseconds.
 */
export function releaseStartMemory(): void {
  mallocTrim(0)
  // A refusal costs memory and nothing else.
  for (const { start, end } of untouchedFileRanges(readFileSync('/proc/self/smaps', 'latin1')))
    madvise(start, Number(end - start), MADV_DONTNEED)
}

/**
 * Mappings of files that nobody here can have changed: not writable, private, without a page of the process's own (a page
 * that was written before it was protected, as relocations are, would be lost) and not locked. Of the text of proc_pid_smaps(5).
 */
export function untouchedFileRanges(smaps: string): { start: bigint; end: bigint }[] {
  const ranges: { start: bigint; end: bigint }[] = []
  let range: { start: bigint; end: bigint } | null = null
  let kb = new Map<string, number>()
  const finish = (): void => {
    const isOwn = ['Anonymous', 'Swap', 'Locked'].some(name => kb.get(name) !== 0)
    if (range !== null && !isOwn && (kb.get('Rss') ?? 0) > 0) ranges.push(range)
  }
  for (const line of smaps.split('\n')) {
    const [, start, end, permissions, path] = header.exec(line) ?? []
    if (start !== undefined) {
      finish()
      const isFile = path?.startsWith('/') === true && permissions !== undefined && /^r-.p$/.test(permissions)
      range = isFile ? { start: BigInt(`0x${start}`), end: BigInt(`0x${end}`) } : null
      kb = new Map()
      continue
    }
    const [, name, value] = field.exec(line) ?? []
    if (name !== undefined) kb.set(name, Number(value))
  }
  finish()
  return ranges
}
const header = /^([0-9a-f]+)-([0-9a-f]+) (\S{4}) \S+ \S+ \d+\s*(.*)$/
const field = /^(\w+):\s+(\d+) kB$/
