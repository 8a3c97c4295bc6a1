import { readFileSync } from 'node:fs'
import {
  chmodFd,
  chownAt,
  type FileKind,
  type FileStat,
  listAttributes,
  type Place,
  readAttribute,
  readLinkAt,
  removeAttribute,
  setModified,
  statAt,
  writeAttribute,
} from '../kernel/file-calls.ts'
import { type ByteReader, ByteWriter } from './bytes.ts'

/** What is kept of a file beside its name and its contents. */
export interface Meta {
  kind: Exclude<FileKind, 'other'>
  mode: number
  uid: number
  gid: number
  /** 0 for anything but a file. */
  size: number
  mtimeS: number
  mtimeNs: number
  /** Another name of the same file is in this tree. */
  linked: boolean
  /** Sorted by name. */
  attributes: readonly Attribute[]
  /** Of a symbolic link, else ''. */
  target: string
}

export interface Attribute {
  name: string
  value: Buffer
}

/**
 * Access lists and capabilities are attributes to the kernel. Not kept: labels of security modules (security.selinux
 * and its like), which belong to the policy of each host.
 */
const isKept = (name: string): boolean =>
  /^(user\.|trusted\.(?!overlay\.)|security\.capability$|system\.posix_acl_(access|default)$)/.test(name)

/** Without this capability the kernel neither shows nor sets attributes "trusted.*" (xattr(7)). */
const CAP_SYS_ADMIN = 21
export function lackForAttributes(): string {
  const effective = /^CapEff:\s*([0-9a-f]+)/m.exec(readFileSync('/proc/self/status', 'utf8'))?.[1] ?? '0'
  const isHeld = ((BigInt(`0x${effective}`) >> BigInt(CAP_SYS_ADMIN)) & 1n) === 1n
  return isHeld ? '' : 'extended attributes "trusted.*" are not replicated: this agent lacks CAP_SYS_ADMIN'
}

/** Minus the errno when one of them can't be read. */
function readAttributes(at: Place): Attribute[] | number {
  const kept: Attribute[] = []
  const names = listAttributes(at)
  if (typeof names === 'number') return names
  for (const name of names) {
    const value = isKept(name) ? readAttribute(at, name) : null
    if (typeof value === 'number') return value
    if (value !== null) kept.push({ name, value })
  }
  return kept.length < 2 ? kept : kept.sort((one, other) => (one.name < other.name ? -1 : 1))
}

/** Null for sockets, FIFOs and devices; minus the errno when it can't be read. */
export function readMeta(at: Place, stat: FileStat, known = { linked: false }): Meta | null | number {
  if (stat.kind === 'other') return null
  const target = stat.kind === 'symlink' ? readLinkAt(at.dirFd, at.name) : ''
  if (typeof target === 'number') return target
  const attributes = stat.kind === 'symlink' ? [] : readAttributes(at)
  if (typeof attributes === 'number') return attributes
  return {
    kind: stat.kind,
    mode: stat.kind === 'symlink' ? 0o777 : stat.mode,
    uid: stat.uid,
    gid: stat.gid,
    size: stat.kind === 'file' ? stat.size : 0,
    mtimeS: stat.mtimeS,
    mtimeNs: stat.mtimeNs,
    linked: known.linked && stat.kind !== 'directory',
    attributes,
    target,
  }
}

/**
 * Gives an open file or directory its owner, mode, attributes and time, in the order in which none undoes another
 * (a change of owner takes away set-id bits and capabilities). Answers 0 or minus the errno.
 */
export function applyMeta(fd: number, meta: Meta): number {
  const at: Place = { dirFd: fd, name: '' }
  const stat = statAt(fd, '')
  if (typeof stat === 'number') return stat
  if (stat.uid !== meta.uid || stat.gid !== meta.gid) {
    const owned = chownAt(at, meta.uid, meta.gid)
    if (owned < 0) return owned
  }
  const attributed = applyAttributes(fd, meta.attributes)
  if (attributed < 0) return attributed
  // An access list, once set, decides on the group's bits: the mode comes after it and is part of it.
  const moded = chmodFd(fd, meta.mode)
  if (moded < 0) return moded
  return setModified(at, meta.mtimeS, meta.mtimeNs)
}

function applyAttributes(fd: number, wanted: readonly Attribute[]): number {
  const present = readAttributes({ dirFd: fd, name: '' })
  if (typeof present === 'number') return present
  for (const { name } of present) {
    if (wanted.some(one => one.name === name)) continue
    const removed = removeAttribute(fd, name)
    if (removed < 0) return removed
  }
  for (const { name, value } of wanted) {
    if (present.some(one => one.name === name && one.value.equals(value))) continue
    const written = writeAttribute(fd, name, value)
    if (written < 0) return written
  }
  return 0
}

const kindNumbers = { file: 1, directory: 2, symlink: 3 } as const
const kindsByNumber = { 1: 'file', 2: 'directory', 3: 'symlink' } as const

export function writeMeta(to: ByteWriter, meta: Meta): void {
  to.u8(kindNumbers[meta.kind] | (meta.linked ? 0x80 : 0))
  to.u16(meta.mode)
  to.u32(meta.uid)
  to.u32(meta.gid)
  to.f64(meta.size)
  to.f64(meta.mtimeS)
  to.u32(meta.mtimeNs)
  to.u16(meta.attributes.length)
  for (const { name, value } of meta.attributes) {
    to.text(name)
    to.bytes(value)
  }
  if (meta.kind === 'symlink') to.text(meta.target)
}

export function readMetaFrom(from: ByteReader): Meta {
  const first = from.u8()
  const kind = kindsByNumber[(first & 0x7f) as 1 | 2 | 3]
  if (kind === undefined) throw new Error(`a file of kind ${first & 0x7f} is not known`)
  const meta = {
    kind,
    linked: (first & 0x80) !== 0,
    mode: from.u16() & 0o7777,
    uid: from.u32(),
    gid: from.u32(),
    size: from.f64(),
    mtimeS: from.f64(),
    mtimeNs: from.u32(),
  }
  const attributes = Array.from({ length: from.u16() }, () => ({ name: from.text(), value: from.bytes() }))
  const wrong = attributes.find(({ name }) => !isKept(name))
  if (wrong !== undefined) throw new Error(`the attribute ${wrong.name} is not one that is replicated`)
  return { ...meta, attributes, target: kind === 'symlink' ? from.text() : '' }
}

/** The same bytes for the same state, on either host: what is compared and hashed. */
export function metaBytes(meta: Meta): Buffer {
  const writer = new ByteWriter(96)
  writeMeta(writer, meta)
  return writer.done()
}
