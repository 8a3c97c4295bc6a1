/** The few bpf(2) commands the second gate needs, and the instructions of its programs (linux/bpf.h). */
import koffi from 'koffi'
import { EINVAL, KernelError } from './libc.ts'

/** The number of bpf(2) differs by architecture. */
const SYSCALL: Partial<Record<NodeJS.Architecture, number>> = { x64: 321, arm64: 280 }

const libc = koffi.load('libc.so.6')
const syscall = libc.func('int64 syscall(int64 number, int command, void *attributes, uint32 size)')
const open = libc.func('int open(const char *path, int flags)')

const BPF_MAP_CREATE = 0
const BPF_MAP_UPDATE_ELEM = 2
const BPF_PROG_LOAD = 5
const BPF_PROG_ATTACH = 8
const BPF_PROG_DETACH = 9
const BPF_PROG_TEST_RUN = 10
const BPF_PROG_GET_FD_BY_ID = 13
const BPF_OBJ_GET_INFO_BY_FD = 15
const BPF_PROG_QUERY = 16
const BPF_MAP_TYPE_ARRAY = 2
const BPF_PROG_TYPE_CGROUP_SKB = 8
/** Several programs stand side by side, and a packet passes only if all let it. */
const BPF_F_ALLOW_MULTI = 2
const O_DIRECTORY_CLOEXEC = 0o2200000
const ATTRIBUTE_BYTES = 128
const INFO_NAME_OFFSET = 64
/** A cgroup with more programs than this is not one of ours; the kernel's own limit is 64. */
const MAX_PROGRAMS = 64
/** BPF_OBJ_NAME_LEN, the zero at the end included. */
const NAME_BYTES = 16

export type AttachPoint = 'ingress' | 'egress'
const ATTACH_TYPE: Record<AttachPoint, number> = { ingress: 0, egress: 1 }

function bpf(command: number, attributes: Buffer, what: string): number {
  const number = SYSCALL[process.arch]
  if (number === undefined) throw new KernelError(what, EINVAL, `bpf(2) is not known on ${process.arch}`)
  const result = Number(syscall(number, command, attributes, attributes.length))
  if (result < 0) throw new KernelError(what, koffi.errno())
  return result
}

function attributes(fields: readonly (readonly [offset: number, value: number | bigint])[]): Buffer {
  const bytes = Buffer.alloc(ATTRIBUTE_BYTES)
  for (const [offset, value] of fields) {
    if (typeof value === 'bigint') bytes.writeBigUInt64LE(value, offset)
    else bytes.writeUInt32LE(value, offset)
  }
  return bytes
}

function addressOf(buffer: Buffer): bigint {
  return BigInt(koffi.address(buffer))
}

/** Opens a cgroup's folder, for attaching to it. */
export function openCgroup(path: string): number {
  const fd = open(path, O_DIRECTORY_CLOEXEC)
  if (fd < 0) throw new KernelError(`open ${path}`, koffi.errno())
  return fd
}

/** A map of one 64-bit value. */
export function createCell(): number {
  const fields = [
    [0, BPF_MAP_TYPE_ARRAY],
    [4, 4],
    [8, 8],
    [12, 1],
  ] as const
  return bpf(BPF_MAP_CREATE, attributes(fields), 'create a BPF map')
}

export function writeCell(map: number, value: bigint): void {
  const key = Buffer.alloc(4)
  const cell = Buffer.alloc(8)
  cell.writeBigUInt64LE(value)
  const fields = [
    [0, map],
    [8, addressOf(key)],
    [16, addressOf(cell)],
    [24, 0n],
  ] as const
  bpf(BPF_MAP_UPDATE_ELEM, attributes(fields), 'write a BPF map')
}

/** Loads a program for packets of a cgroup. The verifier's refusal is EACCES or EINVAL. */
export function loadCgroupProgram(program: { name: string; point: AttachPoint; instructions: Buffer }): number {
  const licence = Buffer.from('GPL\0')
  const { instructions } = program
  const bytes = attributes([
    [0, BPF_PROG_TYPE_CGROUP_SKB],
    [4, instructions.length / 8],
    [8, addressOf(instructions)],
    [16, addressOf(licence)],
    [68, ATTACH_TYPE[program.point]],
  ])
  bytes.write(program.name.slice(0, NAME_BYTES - 1), 48)
  return bpf(BPF_PROG_LOAD, bytes, `load the BPF program ${program.name}`)
}

export function attachToCgroup(cgroup: number, program: number, point: AttachPoint): void {
  const fields = [
    [0, cgroup],
    [4, program],
    [8, ATTACH_TYPE[point]],
    [12, BPF_F_ALLOW_MULTI],
  ] as const
  bpf(BPF_PROG_ATTACH, attributes(fields), `attach a BPF program to a cgroup (${point})`)
}

export function detachFromCgroup(cgroup: number, program: number, point: AttachPoint): void {
  const fields = [
    [0, cgroup],
    [4, program],
    [8, ATTACH_TYPE[point]],
  ] as const
  bpf(BPF_PROG_DETACH, attributes(fields), `detach a BPF program from a cgroup (${point})`)
}

/** Descriptors of the programs attached to a cgroup, with their names; the caller closes them. */
export function attachedPrograms(cgroup: number, point: AttachPoint): { fd: number; name: string }[] {
  const ids = Buffer.alloc(MAX_PROGRAMS * 4)
  const query = attributes([
    [0, cgroup],
    [4, ATTACH_TYPE[point]],
    [16, addressOf(ids)],
    [24, MAX_PROGRAMS],
  ])
  bpf(BPF_PROG_QUERY, query, 'ask for the BPF programs of a cgroup')
  return Array.from({ length: query.readUInt32LE(24) }, (_, i) => {
    const fd = bpf(BPF_PROG_GET_FD_BY_ID, attributes([[0, ids.readUInt32LE(i * 4)]]), 'open a BPF program')
    return { fd, name: programName(fd) }
  })
}

function programName(fd: number): string {
  const info = Buffer.alloc(INFO_NAME_OFFSET + NAME_BYTES)
  const request = attributes([
    [0, fd],
    [4, info.length],
    [8, addressOf(info)],
  ])
  bpf(BPF_OBJ_GET_INFO_BY_FD, request, 'ask for the name of a BPF program')
  const name = info.subarray(INFO_NAME_OFFSET)
  return name.toString('utf8', 0, Math.max(0, name.indexOf(0)))
}

/** Runs a program on a frame (with its Ethernet header) without any network; returns its verdict. */
export function tryProgram(program: number, frame: Buffer): number {
  const request = attributes([
    [0, program],
    [8, frame.length],
    [16, addressOf(frame)],
    [32, 1],
  ])
  bpf(BPF_PROG_TEST_RUN, request, 'try a BPF program')
  return request.readUInt32LE(4)
}

/** An instruction before its jump is known: `to` names a label. */
export type Instruction = {
  code: number
  dst?: number
  src?: number
  offset?: number
  imm?: number
  to?: string
}

/** Puts instructions into bytes. A text is a label for the instruction behind it. Jumps go forward only. */
export function assemble(parts: readonly (Instruction | string)[]): Buffer {
  const labels = new Map<string, number>()
  const code: Instruction[] = []
  for (const part of parts) {
    if (typeof part === 'string') labels.set(part, code.length)
    else code.push(part)
  }
  const bytes = Buffer.alloc(code.length * 8)
  for (const [i, { code: op, dst = 0, src = 0, offset = 0, imm = 0, to }] of code.entries()) {
    const target = to === undefined ? undefined : labels.get(to)
    if (to !== undefined && target === undefined) throw new Error(`the BPF program has no label ${to}`)
    bytes.writeUInt8(op, i * 8)
    bytes.writeUInt8((src << 4) | dst, i * 8 + 1)
    bytes.writeInt16LE(target === undefined ? offset : target - i - 1, i * 8 + 2)
    bytes.writeInt32LE(imm | 0, i * 8 + 4)
  }
  return bytes
}
