/**
 * The C library calls Node does not offer, bound once with koffi and used by the kernel-facing drivers.
 *
 * Every call here returns at once: sockets are non-blocking by use (MSG_DONTWAIT), because a thread blocked in native
 * code can't be stopped and makes `process.exit()` hang. Wait with {@link waitReadable}, always with a limit.
 * Linux with glibc, 64 bit.
 */
import { getSystemErrorMessage, getSystemErrorName } from 'node:util'
import koffi from 'koffi'

const lib = koffi.load('libc.so.6')

koffi.struct('us_sock_fprog', { len: 'uint16', filter: 'void *' })
koffi.struct('us_sched_param', { priority: 'int' })

const native = {
  socket: lib.func('int socket(int domain, int type, int protocol)'),
  close: lib.func('int close(int fd)'),
  connect: lib.func('int connect(int fd, const void *address, uint32 length)'),
  bind: lib.func('int bind(int fd, const void *address, uint32 length)'),
  getsockname: lib.func('int getsockname(int fd, void *address, _Inout_ uint32 *length)'),
  setsockopt: lib.func('int setsockopt(int fd, int level, int name, const void *value, uint32 length)'),
  attachFilter: lib.func('setsockopt', 'int', ['int', 'int', 'int', 'us_sock_fprog *', 'uint32']),
  send: lib.func('int64 send(int fd, const void *data, size_t length, int flags)'),
  sendto: lib.func('int64 sendto(int fd, const void *data, size_t length, int flags, const void *to, uint32 toLength)'),
  recv: lib.func('int64 recv(int fd, void *data, size_t length, int flags)'),
  recvmmsg: lib.func('int recvmmsg(int fd, void *headers, uint32 count, int flags, void *timeout)'),
  poll: lib.func('int poll(void *fds, uint64 count, int timeoutMs)'),
  clockGettime: lib.func('int clock_gettime(int clock, void *time)'),
  schedSetscheduler: lib.func('int sched_setscheduler(int pid, int policy, us_sched_param *param)'),
  waitpid: lib.func('int waitpid(int pid, void *status, int options)'),
  ifNametoindex: lib.func('uint32 if_nametoindex(const char *name)'),
}

export const AF_UNIX = 1
export const AF_INET = 2
export const AF_INET6 = 10
export const AF_NETLINK = 16
export const AF_PACKET = 17
export const SOCK_STREAM = 1
export const SOCK_DGRAM = 2
export const SOCK_RAW = 3
const SOCK_CLOEXEC = 0x80000
const SOCK_NONBLOCK = 0x800
const MSG_DONTWAIT = 0x40
const MSG_TRUNC = 0x20
const SOL_SOCKET = 1
const SO_RCVBUFFORCE = 33
const SO_ATTACH_FILTER = 26
const POLLIN = 1
const SCHED_OTHER = 0
const SCHED_RR = 2
/** Children (PostgreSQL, services) must not inherit it. */
const SCHED_RESET_ON_FORK = 0x40000000

/** errno values the drivers decide on (asm-generic/errno.h). */
export const EPERM = 1
export const ENOENT = 2
export const EINTR = 4
export const ENXIO = 6
export const EAGAIN = 11
export const EEXIST = 17
export const ENODEV = 19
export const EINVAL = 22
export const EOPNOTSUPP = 95
export const EADDRNOTAVAIL = 99
export const ENOBUFS = 105

/** Of errors that Node has no name for: a file system that finds itself damaged says EBADMSG or EUCLEAN. */
const otherNames: { [errno: number]: string } = { 74: 'EBADMSG', 117: 'EUCLEAN' }

/** Always begins with an E: callers tell errors of the kernel by that. */
export function errorName(errno: number): string {
  const name = getSystemErrorName(-errno)
  return name.startsWith('E') ? name : (otherNames[errno] ?? `E${errno}`)
}

/** A system call or a netlink request that the kernel refused. `errno` is positive. */
export class KernelError extends Error {
  readonly errno: number
  readonly code: string
  constructor(what: string, errno: number, hint = '') {
    const code = errorName(errno)
    super(`${what}: ${code} (${getSystemErrorMessage(-errno)})${hint === '' ? '' : `: ${hint}`}`)
    this.name = 'KernelError'
    this.errno = errno
    this.code = code
  }
}

function must(result: number, what: string): number {
  if (result < 0) throw new KernelError(what, koffi.errno())
  return result
}

/** Opens a close-on-exec socket. Throws {@link KernelError} (EPERM: CAP_NET_RAW or CAP_NET_ADMIN is missing). */
export function openSocket(options: { domain: number; type: number; protocol: number }): number {
  const { domain, type, protocol } = options
  return must(
    native.socket(domain, type | SOCK_CLOEXEC | SOCK_NONBLOCK, protocol),
    `socket(${domain}, ${type}, ${protocol})`,
  )
}

/** Closes a descriptor; a second close is a bug of the caller and throws EBADF. */
export function closeFd(fd: number): void {
  must(native.close(fd), `close(${fd})`)
}

/**
 * Closes a descriptor on a thread of Node's pool. For packet sockets, whose close waits for the kernel to be done with
 * every packet in flight (20 ms and more).
 */
export function closeFdLater(fd: number): void {
  try {
    native.close.async(fd, () => undefined)
  } catch {
    // Too many calls wait on the pool already (a disk that hangs): better slow than a descriptor lost.
    native.close(fd)
  }
}

export function bindSocket(fd: number, address: Buffer): void {
  must(native.bind(fd, address, address.length), 'bind')
}

/** sockaddr_un, unix(7): "@name" is an abstract address, which begins with a zero byte. */
export function unixAddress(path: string): Buffer {
  const name = Buffer.from(path.startsWith('@') ? `\0${path.slice(1)}` : `${path}\0`)
  const family = Buffer.alloc(2)
  family.writeUInt16LE(AF_UNIX)
  return Buffer.concat([family, name])
}

/** Connects without waiting. Returns 0, or the errno: EAGAIN where whoever listens has as many waiting as he takes. */
export function connectUnix(fd: number, path: string): number {
  const address = unixAddress(path)
  return native.connect(fd, address, address.length) === 0 ? 0 : koffi.errno()
}

/** The address a socket is bound to, at most `maxBytes` of it. */
export function socketName(fd: number, maxBytes: number): Buffer {
  const address = Buffer.alloc(maxBytes)
  must(native.getsockname(fd, address, [maxBytes]), 'getsockname')
  return address
}

/** Sets an integer socket option. */
export function setOption(fd: number, option: { level: number; name: number; value: number }): void {
  const bytes = Buffer.alloc(4)
  bytes.writeInt32LE(option.value)
  must(native.setsockopt(fd, option.level, option.name, bytes, 4), `setsockopt(${option.level}, ${option.name})`)
}

/** Enlarges the receive buffer beyond net.core.rmem_max (needs CAP_NET_ADMIN). */
export function forceReceiveBuffer(fd: number, bytes: number): void {
  setOption(fd, { level: SOL_SOCKET, name: SO_RCVBUFFORCE, value: bytes })
}

/** One instruction of a classic BPF socket filter: code, jump if true, jump if false, constant. */
export type FilterInstruction = readonly [code: number, jt: number, jf: number, k: number]

/** Lets the kernel drop what the program does not accept before it takes up room in the receive buffer. */
export function attachFilter(fd: number, program: readonly FilterInstruction[]): void {
  const bytes = Buffer.alloc(program.length * 8)
  for (const [i, [code, jt, jf, k]] of program.entries()) {
    bytes.writeUInt16LE(code, i * 8)
    bytes.writeUInt8(jt, i * 8 + 2)
    bytes.writeUInt8(jf, i * 8 + 3)
    bytes.writeUInt32LE(k, i * 8 + 4)
  }
  const program16 = { len: program.length, filter: bytes }
  must(native.attachFilter(fd, SOL_SOCKET, SO_ATTACH_FILTER, program16, 16), 'setsockopt(SO_ATTACH_FILTER)')
}

/** Sends without blocking. Returns 0, or the errno: a refused packet (EPERM by the gate, ENOBUFS) is an expected outcome. */
export function trySend(fd: number, data: Buffer, to?: Buffer): number {
  const sent =
    to === undefined
      ? native.send(fd, data, data.length, MSG_DONTWAIT)
      : native.sendto(fd, data, data.length, MSG_DONTWAIT, to, to.length)
  return sent < 0 ? koffi.errno() : 0
}

/**
 * Receives one datagram without blocking. Returns its whole length, which may exceed what fitted into `into`
 * (the rest is lost), or minus the errno (EAGAIN: nothing there).
 */
export function tryReceive(fd: number, into: Buffer): number {
  const length = Number(native.recv(fd, into, into.length, MSG_DONTWAIT | MSG_TRUNC))
  return length < 0 ? -koffi.errno() : length
}

/** struct mmsghdr of 64-bit Linux (recvmmsg(2)): a msghdr of 56 bytes, the length that arrived, padding. */
const MMSGHDR_BYTES = 64
const MMSGHDR_NAME_LENGTH = 8
const MMSGHDR_IOV = 16
const MMSGHDR_IOV_COUNT = 24
const MMSGHDR_LENGTH = 56
const IOVEC_BYTES = 16
/** The longest of an IP address; a longer one is cut. */
const SOCKADDR_BYTES = 28

/**
 * Room for several datagrams that are taken with one call: an answer of netlink is one datagram for each message of the
 * request. One for all sockets of a process is enough, since its datagrams are only valid until the next call.
 */
export class ReceiveRoom {
  readonly #slots: readonly Buffer[]
  readonly #headers: Buffer
  /** The headers point at these. */
  readonly #vectors: Buffer
  readonly #names: Buffer

  constructor(room: { datagrams: number; bytesEach: number }) {
    this.#slots = Array.from({ length: room.datagrams }, () => Buffer.alloc(room.bytesEach))
    this.#headers = Buffer.alloc(room.datagrams * MMSGHDR_BYTES)
    this.#vectors = Buffer.alloc(room.datagrams * IOVEC_BYTES)
    this.#names = Buffer.alloc(room.datagrams * SOCKADDR_BYTES)
    const addressOf = (buffer: Buffer): bigint => BigInt(koffi.address(buffer))
    for (const [i, slot] of this.#slots.entries()) {
      this.#vectors.writeBigUInt64LE(addressOf(slot), i * IOVEC_BYTES)
      this.#vectors.writeBigUInt64LE(BigInt(slot.length), i * IOVEC_BYTES + 8)
      const iov = addressOf(this.#vectors) + BigInt(i * IOVEC_BYTES)
      const name = addressOf(this.#names) + BigInt(i * SOCKADDR_BYTES)
      this.#headers.writeBigUInt64LE(name, i * MMSGHDR_BYTES)
      this.#headers.writeUInt32LE(SOCKADDR_BYTES, i * MMSGHDR_BYTES + MMSGHDR_NAME_LENGTH)
      this.#headers.writeBigUInt64LE(iov, i * MMSGHDR_BYTES + MMSGHDR_IOV)
      this.#headers.writeBigUInt64LE(1n, i * MMSGHDR_BYTES + MMSGHDR_IOV_COUNT)
    }
  }

  get datagrams(): number {
    return this.#slots.length
  }

  /**
   * Receives what is there without blocking: how many datagrams, or minus the errno (EAGAIN: nothing there). An error
   * behind some datagrams is told by the next call. Fewer than there is room for: no more were there.
   */
  receive(fd: number): number {
    const count = native.recvmmsg(fd, this.#headers, this.#slots.length, MSG_DONTWAIT | MSG_TRUNC, null)
    return count < 0 ? -koffi.errno() : count
  }

  /** One of the datagrams of the last call, its whole length, which may exceed what fitted, and the address it came from. */
  datagram(index: number): { bytes: Buffer; length: number; from: Buffer } {
    const at = index * MMSGHDR_BYTES
    const length = this.#headers.readUInt32LE(at + MMSGHDR_LENGTH)
    // The kernel has written how long the address is; for the next call it is how much room there is.
    this.#headers.writeUInt32LE(SOCKADDR_BYTES, at + MMSGHDR_NAME_LENGTH)
    const from = this.#names.subarray(index * SOCKADDR_BYTES, (index + 1) * SOCKADDR_BYTES)
    return { bytes: this.#slots[index]!.subarray(0, length), length, from }
  }
}

/**
 * Waits until the descriptor is readable, for at most `limitMs`, on a thread of Node's pool: the loop goes on, and
 * `process.exit()` waits for no longer than the limit.
 */
export function waitReadable(fd: number, limitMs: number): Promise<boolean> {
  const poll = Buffer.alloc(8)
  poll.writeInt32LE(fd, 0)
  poll.writeInt16LE(POLLIN, 4)
  return new Promise((resolve, reject) => {
    native.poll.async(poll, 1, limitMs, (error: Error | null, ready: number) => {
      if (error === null) resolve(ready > 0)
      else reject(error)
    })
  })
}

/** Whether one of several descriptors has something to read, with one call for all of them; it never waits. */
export class ReadySet {
  readonly #poll: Buffer
  readonly #count: number

  constructor(fds: readonly number[]) {
    this.#count = fds.length
    this.#poll = Buffer.alloc(8 * fds.length)
    for (const [index, fd] of fds.entries()) {
      this.#poll.writeInt32LE(fd, index * 8)
      this.#poll.writeInt16LE(POLLIN, index * 8 + 4)
    }
  }

  /** An error of one, such as an overrun, is something to read as well. */
  any(): boolean {
    return native.poll(this.#poll, this.#count, 0) > 0
  }
}

/** struct timespec in halves, since a BigInt for each costs more than the call: seconds low and high, nanoseconds low. */
const timespec = new Uint32Array(4)
/** Reads a POSIX clock, in milliseconds with a fraction. */
export function clockMs(clockId: number): number {
  const failed = native.clockGettime(clockId, timespec)
  if (failed !== 0) must(failed, `clock_gettime(${clockId})`)
  return (timespec[0]! + timespec[1]! * 2 ** 32) * 1000 + timespec[2]! / 1e6
}

/** 0: none was asked for. */
let realTimePriority = 0

/** Makes the calling thread, and no other, a real-time one (sched(7), SCHED_RR). `priority` 1 to 99. */
export function runRealTime(priority: number): void {
  must(
    native.schedSetscheduler(0, SCHED_RR | SCHED_RESET_ON_FORK, { priority }),
    `sched_setscheduler(SCHED_RR, ${priority})`,
  )
  realTimePriority = priority
}

/** For a while, where the thread is a real-time one; see child-end.ts. */
export function runOrdinary(): void {
  if (realTimePriority === 0) return
  must(
    native.schedSetscheduler(0, SCHED_OTHER | SCHED_RESET_ON_FORK, { priority: 0 }),
    'sched_setscheduler(SCHED_OTHER)',
  )
}

/** After `runOrdinary`. */
export function runRealTimeAgain(): void {
  if (realTimePriority > 0) runRealTime(realTimePriority)
}

const WNOHANG = 1

/** Takes the end of a child that Node did not start; false: it has not ended yet. */
export function reapChild(pid: number): boolean {
  return native.waitpid(pid, null, WNOHANG) !== 0
}

/** The kernel's number of an interface, or 0 if there is none of that name. */
export function interfaceIndex(name: string): number {
  return native.ifNametoindex(name)
}
