/**
 * Calls on files that Node does not offer, or offers only for paths from the root: everything here works below an open
 * directory, never follows a symbolic link, and takes names as bytes (in JavaScript: a string of one character a byte,
 * "latin1", so that a name that is not UTF-8 stays what it is).
 *
 * Each answers with a number ≥ 0 or minus the errno, because on a tree that others change nearly every errno is an
 * expected outcome. Linux with glibc, 64 bit, kernel 5.6 (openat2).
 */
import koffi from 'koffi'
import { EOPNOTSUPP } from './libc.ts'

const lib = koffi.load('libc.so.6')

const native = {
  syscall: lib.func('int64 syscall(int64 number, int64 fd, const void *path, const void *how, size_t size)'),
  openat: lib.func('openat', 'int', ['int', 'const void *', 'int', 'uint32']),
  close: lib.func('int close(int fd)'),
  statx: lib.func('int statx(int fd, const void *path, int flags, uint32 mask, void *into)'),
  mkdirat: lib.func('int mkdirat(int fd, const void *path, uint32 mode)'),
  unlinkat: lib.func('int unlinkat(int fd, const void *path, int flags)'),
  renameat2: lib.func('int renameat2(int fd, const void *from, int toFd, const void *to, uint32 flags)'),
  linkat: lib.func('int linkat(int fd, const void *from, int toFd, const void *to, int flags)'),
  symlinkat: lib.func('int symlinkat(const void *target, int fd, const void *path)'),
  readlinkat: lib.func('int64 readlinkat(int fd, const void *path, void *into, size_t size)'),
  fchownat: lib.func('int fchownat(int fd, const void *path, uint32 uid, uint32 gid, int flags)'),
  fchmod: lib.func('int fchmod(int fd, uint32 mode)'),
  ftruncate: lib.func('int ftruncate(int fd, int64 size)'),
  utimensat: lib.func('int utimensat(int fd, const void *path, const void *times, int flags)'),
  futimens: lib.func('int futimens(int fd, const void *times)'),
  fallocate: lib.func('int fallocate(int fd, int mode, int64 offset, int64 length)'),
  lseek: lib.func('int64 lseek(int fd, int64 offset, int whence)'),
  llistxattr: lib.func('int64 llistxattr(const void *path, void *into, size_t size)'),
  flistxattr: lib.func('int64 flistxattr(int fd, void *into, size_t size)'),
  fgetxattr: lib.func('int64 fgetxattr(int fd, const void *name, void *into, size_t size)'),
  lgetxattr: lib.func('int64 lgetxattr(const void *path, const void *name, void *into, size_t size)'),
  fsetxattr: lib.func('int fsetxattr(int fd, const void *name, const void *value, size_t size, int flags)'),
  fremovexattr: lib.func('int fremovexattr(int fd, const void *name)'),
  fsync: lib.func('int fsync(int fd)'),
  fdatasync: lib.func('int fdatasync(int fd)'),
  syncfs: lib.func('int syncfs(int fd)'),
  posixFadvise: lib.func('int posix_fadvise(int fd, int64 offset, int64 length, int advice)'),
  syncFileRange: lib.func('int sync_file_range(int fd, int64 offset, int64 length, uint32 flags)'),
}

export const O_RDONLY = 0
export const O_WRONLY = 1
export const O_RDWR = 2
export const O_CREAT = 0o100
export const O_EXCL = 0o200
export const O_NONBLOCK = 0o4000
export const O_DIRECTORY = process.arch === 'arm64' ? 0o40000 : 0o200000
export const O_NOFOLLOW = process.arch === 'arm64' ? 0o100000 : 0o400000
const O_CLOEXEC = 0o2000000
export const RENAME_NOREPLACE = 1
const AT_FDCWD = -100
const AT_SYMLINK_NOFOLLOW = 0x100
const AT_REMOVEDIR = 0x200
const STATX_BASIC = 0x7ff
const OPENAT2 = 437
/** Neither out of the directory, nor over any symbolic link, nor into another mount (openat2(2)). */
const RESOLVE_WITHIN = 0x08 | 0x04 | 0x02 | 0x01
const FALLOC_PUNCH_HOLE = 0x02 | 0x01
const SEEK_DATA = 3
const SEEK_HOLE = 4

/** errno values beside those of libc.ts that decide something on a tree. */
export const EIO = 5
export const EACCES = 13
export const EXDEV = 18
export const ENOTDIR = 20
export const EISDIR = 21
export const ENOSPC = 28
export const EROFS = 30
export const ENOTEMPTY = 39
export const ELOOP = 40
export const ENODATA = 61
export const ESTALE = 116

/** PATH_MAX; a longer one can't be given to any call, but directories deeper than that are reached step by step. */
const pathBytesMax = 4096
const first = Buffer.alloc(pathBytesMax + 1)
const second = Buffer.alloc(pathBytesMax + 1)

function cString(text: string, into = first): Buffer {
  const length = into.write(text, 0, pathBytesMax, 'latin1')
  into[length] = 0
  return into
}

const answer = (result: number): number => (result < 0 ? -koffi.errno() : Number(result))

const how = Buffer.alloc(24)
/** Opens a path of several names below a directory, which it cannot leave. */
export function openBeneath(dirFd: number, path: string, flags: number): number {
  how.writeBigUInt64LE(BigInt(flags | O_CLOEXEC), 0)
  how.writeBigUInt64LE(0n, 8)
  how.writeBigUInt64LE(BigInt(RESOLVE_WITHIN), 16)
  return answer(native.syscall(OPENAT2, dirFd, cString(path === '' ? '.' : path), how, how.length))
}

/** Opens one name in a directory; a symbolic link is ELOOP. */
export function openAt(dirFd: number, name: string, options: { flags: number; mode?: number }): number {
  const flags = options.flags | O_CLOEXEC | O_NOFOLLOW
  return answer(native.openat(dirFd, cString(name), flags, options.mode ?? 0))
}

/** Opens a path from the root, as the configuration names it: symbolic links are followed. */
export const openDirectory = (path: string): number =>
  answer(native.openat(AT_FDCWD, cString(path), O_DIRECTORY | O_CLOEXEC, 0))

export const closeFile = (fd: number): void => {
  native.close(fd)
}

export type FileKind = 'file' | 'directory' | 'symlink' | 'other'

export interface FileStat {
  kind: FileKind
  /** Permission bits with set-id and sticky, 12 bits. */
  mode: number
  links: number
  uid: number
  gid: number
  ino: number
  size: number
  /** Allocated, in bytes: less than `size` for a file with holes. */
  allocated: number
  mtimeS: number
  mtimeNs: number
  ctimeS: number
  ctimeNs: number
  /** Major and minor number in one. */
  device: number
}

/** By the four bits above the permissions (inode(7)): S_IFREG, S_IFDIR, S_IFLNK. */
const statBytes = Buffer.alloc(256)
const kinds: { [type: number]: FileKind } = { 8: 'file', 4: 'directory', 10: 'symlink' }

/** What is at a name, without following it; `''` is the directory itself. Minus the errno when nothing is. */
export function statAt(dirFd: number, name: string): FileStat | number {
  return stat(dirFd, name, AT_SYMLINK_NOFOLLOW | (name === '' ? 0x1000 : 0))
}

/** What is at a path from the root, as the configuration names it: symbolic links are followed. */
export const statPath = (path: string): FileStat | number => stat(AT_FDCWD, path, 0)

function stat(dirFd: number, name: string, flags: number): FileStat | number {
  const result = native.statx(dirFd, cString(name), flags, STATX_BASIC, statBytes)
  if (result < 0) return -koffi.errno()
  const b = statBytes
  const mode = b.readUInt16LE(28)
  return {
    kind: kinds[mode >> 12] ?? 'other',
    mode: mode & 0o7777,
    links: b.readUInt32LE(16),
    uid: b.readUInt32LE(20),
    gid: b.readUInt32LE(24),
    ino: wide(b, 32),
    size: wide(b, 40),
    allocated: wide(b, 48) * 512,
    ctimeS: signedWide(b, 96),
    ctimeNs: b.readUInt32LE(104),
    mtimeS: signedWide(b, 112),
    mtimeNs: b.readUInt32LE(120),
    device: b.readUInt32LE(136) * 2 ** 20 + b.readUInt32LE(140),
  }
}

/** 64 bits as a number: exact below 2^53, as every size and every inode number in use is. */
const wide = (b: Buffer, at: number): number => b.readUInt32LE(at) + b.readUInt32LE(at + 4) * 2 ** 32
const signedWide = (b: Buffer, at: number): number => b.readUInt32LE(at) + b.readInt32LE(at + 4) * 2 ** 32

export const statFd = (fd: number): FileStat | number => statAt(fd, '')

export const makeDirectoryAt = (dirFd: number, name: string): number =>
  answer(native.mkdirat(dirFd, cString(name), 0o700))
export const unlinkAt = (dirFd: number, name: string): number => answer(native.unlinkat(dirFd, cString(name), 0))
export const removeDirectoryAt = (dirFd: number, name: string): number =>
  answer(native.unlinkat(dirFd, cString(name), AT_REMOVEDIR))

/** A name in an open directory. */
export interface Place {
  dirFd: number
  name: string
}

export const renameAt = (from: Place, to: Place, flags = 0): number =>
  answer(native.renameat2(from.dirFd, cString(from.name), to.dirFd, cString(to.name, second), flags))
export const linkAt = (from: Place, to: Place): number =>
  answer(native.linkat(from.dirFd, cString(from.name), to.dirFd, cString(to.name, second), 0))
export const symlinkAt = (target: string, at: Place): number =>
  answer(native.symlinkat(cString(target), at.dirFd, cString(at.name, second)))

const linkTarget = Buffer.alloc(pathBytesMax)
export function readLinkAt(dirFd: number, name: string): string | number {
  const length = answer(native.readlinkat(dirFd, cString(name), linkTarget, linkTarget.length))
  return length < 0 ? length : linkTarget.toString('latin1', 0, length)
}

export const chownAt = (at: Place, uid: number, gid: number): number =>
  answer(native.fchownat(at.dirFd, cString(at.name), uid, gid, AT_SYMLINK_NOFOLLOW | (at.name === '' ? 0x1000 : 0)))
export const chmodFd = (fd: number, mode: number): number => answer(native.fchmod(fd, mode))
export const truncateFd = (fd: number, size: number): number => answer(native.ftruncate(fd, size))
export const punchHole = (fd: number, offset: number, length: number): number =>
  answer(native.fallocate(fd, FALLOC_PUNCH_HOLE, offset, length))

const times = Buffer.alloc(32)
/** UTIME_OMIT: the time of access is nobody's business here. */
const omit = 0x3ffffffen
/** Sets the time of modification to the nanosecond; with a null place the descriptor's own. */
export function setModified(at: Place, seconds: number, nanoseconds: number): number {
  times.writeBigInt64LE(omit, 8)
  times.writeBigInt64LE(BigInt(seconds), 16)
  times.writeBigInt64LE(BigInt(nanoseconds), 24)
  if (at.name === '') return answer(native.futimens(at.dirFd, times))
  return answer(native.utimensat(at.dirFd, cString(at.name), times, AT_SYMLINK_NOFOLLOW))
}

/** Takes the space at once, zeros to read (fallocate(2)). EOPNOTSUPP where the file system can't. */
export const allocateFd = (fd: number, bytes: number): number => answer(native.fallocate(fd, 0, 0, bytes))

/** Where the next data after `offset` begins, minus ENXIO when there is none. */
export const nextData = (fd: number, offset: number): number => answer(native.lseek(fd, offset, SEEK_DATA))
export const nextHole = (fd: number, offset: number): number => answer(native.lseek(fd, offset, SEEK_HOLE))

/** The kernel's limit for a list and for a value (XATTR_SIZE_MAX). */
const attributeBytesMax = 65_536
const attributeBytes = Buffer.alloc(attributeBytesMax)
/** These two calls know no directory descriptors; the link in /proc leads to the open directory, not to its path. */
const procPath = ({ dirFd, name }: Place): Buffer => cString(`/proc/self/fd/${dirFd}/${name}`)

/**
 * Names of the extended attributes; empty where the file system has none. The name `''` is the descriptor itself. Minus
 * the errno when they can't be read: an unknown list must not pass for an empty one.
 */
export function listAttributes(at: Place): string[] | number {
  const length = answer(
    at.name === ''
      ? native.flistxattr(at.dirFd, attributeBytes, attributeBytesMax)
      : native.llistxattr(procPath(at), attributeBytes, attributeBytesMax),
  )
  if (length < 0) return length === -EOPNOTSUPP ? [] : length
  return length === 0 ? [] : attributeBytes.toString('latin1', 0, length - 1).split('\0')
}

/** Null: it is not there (any more). Minus the errno when it can't be read. */
export function readAttribute(at: Place, name: string): Buffer | null | number {
  const length = answer(
    at.name === ''
      ? native.fgetxattr(at.dirFd, cString(name), attributeBytes, attributeBytesMax)
      : native.lgetxattr(procPath(at), cString(name, second), attributeBytes, attributeBytesMax),
  )
  if (length < 0) return length === -ENODATA || length === -EOPNOTSUPP ? null : length
  return Buffer.from(attributeBytes.subarray(0, length))
}

export const writeAttribute = (fd: number, name: string, value: Buffer): number =>
  answer(native.fsetxattr(fd, cString(name), value, value.length, 0))
export const removeAttribute = (fd: number, name: string): number => answer(native.fremovexattr(fd, cString(name)))

function later(call: { async: (...args: unknown[]) => void }, fd: number): Promise<number> {
  return new Promise((resolve, reject) => {
    call.async(fd, (error: Error | null, result: number) => {
      // The errno belongs to the pool's thread; for a flush every failure is treated as an I/O error.
      if (error !== null) reject(error)
      else resolve(result < 0 ? -EIO : result)
    })
  })
}

/** Flushes on a thread of Node's pool: contents and what is needed to find them. */
export const flushData = (fd: number): Promise<number> => later(native.fdatasync, fd)
/** The same for a directory, or for a file with its times. */
export const flushAll = (fd: number): Promise<number> => later(native.fsync, fd)
/** Everything of the file system the descriptor is on; since Linux 5.8 it tells of errors, as fsync does. */
export const flushFileSystem = (fd: number): Promise<number> => later(native.syncfs, fd)

/** POSIX_FADV_DONTNEED: what is read next comes from the disk (dirty pages stay). */
export const dropCached = (fd: number, offset: number, length: number): void => {
  native.posixFadvise(fd, offset, length, 4)
}

/**
 * Begins to write back a range, so that a flush later on has less to wait for; on a thread of Node's pool, since a disk
 * with a long queue lets the call wait. The descriptor has to stay open until it resolves.
 */
export const beginWriteback = (fd: number, offset: number, length: number): Promise<void> =>
  new Promise(resolve => {
    native.syncFileRange.async(fd, offset, length, 2, () => resolve())
  })
