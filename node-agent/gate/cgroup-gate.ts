/**
 * A second gate, independent of the firewall: BPF programs at the cgroup of the service, which let TCP of the protected
 * ports pass only before an absolute instant of CLOCK_BOOTTIME. A late write of an old instant changes nothing, and a
 * firewall reload does not touch it. It drops, never resets; who may pass in every state is in the program.
 *
 * Optional: it needs a cgroup v2 of the service's own, and is used only where {@link CgroupGate.attach} and its
 * self-test succeed. The programs stay with the cgroup when the agent ends, and shut by themselves.
 */
import { addressBytes, familyOf } from '../kernel/address.ts'
import {
  type AttachPoint,
  assemble,
  attachedPrograms,
  attachToCgroup,
  createCell,
  detachFromCgroup,
  type Instruction,
  loadCgroupProgram,
  openCgroup,
  tryProgram,
  writeCell,
} from '../kernel/bpf.ts'
import { closeFd, KernelError } from '../kernel/libc.ts'

export type CgroupGateSpec = {
  /** Folder of the service's cgroup (v2). */
  cgroup: string
  ports: readonly number[]
  /** Remote addresses that pass in every state: the peer's, for replication. */
  peers: readonly string[]
}

const POINTS: readonly AttachPoint[] = ['ingress', 'egress']
const NAMES: Record<AttachPoint, string> = { ingress: 'us_gate_in', egress: 'us_gate_out' }
const NS_PER_MS = 1_000_000n

export class CgroupGate {
  readonly #cgroup: number
  readonly #cell: number
  readonly #programs: Record<AttachPoint, number>

  private constructor(fds: { cgroup: number; cell: number; programs: Record<AttachPoint, number> }) {
    this.#cgroup = fds.cgroup
    this.#cell = fds.cell
    this.#programs = fds.programs
  }

  /**
   * Puts the gate in place, open until `untilBootMs` (0: shut; at a restart of the agent: until when the firewall's
   * grant lasts), and takes away what an agent before us attached, in this order. The self-test comes first.
   * A refusal by the kernel, or a self-test that fails, is told as `why`: the pair works without this gate.
   */
  static attach(
    spec: CgroupGateSpec,
    untilBootMs: number,
  ): { ok: true; gate: CgroupGate } | { ok: false; why: string } {
    const fds: number[] = []
    const keep = (fd: number): number => {
      fds.push(fd)
      return fd
    }
    try {
      const cgroup = keep(openCgroup(spec.cgroup))
      const cell = keep(createCell())
      const load = (point: AttachPoint) =>
        keep(loadCgroupProgram({ name: NAMES[point], point, instructions: gateProgram(spec, point, cell) }))
      const gate = new CgroupGate({ cgroup, cell, programs: { ingress: load('ingress'), egress: load('egress') } })
      const why = gate.#selfTest(spec)
      if (why !== undefined) {
        gate.#close()
        return { ok: false, why }
      }
      gate.set(untilBootMs)
      gate.#replaceOlder()
      return { ok: true, gate }
    } catch (error) {
      for (const fd of fds) closeFd(fd)
      if (error instanceof KernelError) return { ok: false, why: error.message }
      throw error
    }
  }

  /** Open until that instant (CLOCK_BOOTTIME), whenever this is applied; 0 shuts at once. About 2 µs. */
  set(untilBootMs: number): void {
    writeCell(this.#cell, BigInt(Math.max(0, Math.floor(untilBootMs))) * NS_PER_MS)
  }

  /** Takes the programs away: everything passes. */
  detach(): void {
    for (const point of POINTS) detachFromCgroup(this.#cgroup, this.#programs[point], point)
    this.#close()
  }

  /** Lets go of the descriptors. The programs stay, and shut when their instant comes. */
  dispose(): void {
    this.#close()
  }

  #close(): void {
    for (const fd of [this.#programs.ingress, this.#programs.egress, this.#cell, this.#cgroup]) closeFd(fd)
  }

  #replaceOlder(): void {
    for (const point of POINTS) {
      const older = attachedPrograms(this.#cgroup, point)
      attachToCgroup(this.#cgroup, this.#programs[point], point)
      for (const { fd, name } of older) {
        if (name === NAMES[point]) detachFromCgroup(this.#cgroup, fd, point)
        closeFd(fd)
      }
    }
  }

  #selfTest(spec: CgroupGateSpec): string | undefined {
    const [port] = spec.ports
    if (port === undefined) return 'no port is protected'
    const stranger = (family: 4 | 6) => (family === 4 ? '192.0.2.1' : '2001:db8::1')
    for (const point of POINTS) {
      const verdict = (remote: string, onPort: number) =>
        tryProgram(this.#programs[point], testFrame({ point, remote, port: onPort }))
      const expect = (wanted: { shut: 0 | 1; open: 0 | 1 }, remote: string, onPort = port) => {
        this.set(0)
        const shut = verdict(remote, onPort)
        this.set(Number.MAX_SAFE_INTEGER / 1e6)
        if (shut === wanted.shut && verdict(remote, onPort) === wanted.open) return undefined
        return `the self-test of the ${point} program failed for ${remote}, port ${onPort}`
      }
      const unprotected = spec.ports.includes(1) ? 2 : 1
      const why =
        expect({ shut: 0, open: 1 }, stranger(4)) ??
        expect({ shut: 0, open: 1 }, stranger(6)) ??
        expect({ shut: 1, open: 1 }, stranger(4), unprotected) ??
        spec.peers.map(peer => expect({ shut: 1, open: 1 }, peer)).find(failed => failed !== undefined)
      if (why !== undefined) return why
    }
    return undefined
  }
}

const R0 = 0
const R1 = 1
const R6 = 6
const R7 = 7
const R10 = 10
const FN_SKB_LOAD_BYTES = 26
const FN_KTIME_GET_BOOT_NS = 125
const IPPROTO_TCP = 6
/** The IP header lies at the bottom of the stack, the port above it. */
const HEADER = -64
const PORT = -8

const move = (dst: number, src: number): Instruction => ({ code: 0xbf, dst, src })
const set = (dst: number, imm: number): Instruction => ({ code: 0xb7, dst, imm })
const add = (dst: number, imm: number): Instruction => ({ code: 0x07, dst, imm })
const and = (dst: number, imm: number): Instruction => ({ code: 0x57, dst, imm })
const shiftLeft = (dst: number, imm: number): Instruction => ({ code: 0x67, dst, imm })
const loadByte = (dst: number, offset: number): Instruction => ({ code: 0x71, dst, src: R10, offset })
const loadHalf = (dst: number, offset: number): Instruction => ({ code: 0x69, dst, src: R10, offset })
const loadWord = (dst: number, offset: number): Instruction => ({ code: 0x61, dst, src: R10, offset })
const ifEqual = (dst: number, imm: number, to: string): Instruction => ({ code: 0x16, dst, imm, to })
const ifDifferent = (dst: number, imm: number, to: string): Instruction => ({ code: 0x56, dst, imm, to })
const go = (to: string): Instruction => ({ code: 0x05, to })
const call = (imm: number): Instruction => ({ code: 0x85, imm })
const exit: Instruction = { code: 0x95 }

/** Copies bytes of the packet, counted from its IP header, to the stack; goes to `shut` where there are not as many. */
function copy(bytes: number, stack: number): Instruction[] {
  return [
    move(R1, R6),
    move(3, R10),
    add(3, stack),
    set(4, bytes),
    call(FN_SKB_LOAD_BYTES),
    { code: 0x55, dst: R0, imm: 0, to: 'shut' },
  ]
}

/** Exported for its test. Verdict 1 lets a packet pass, 0 drops it; what can't be read is dropped. */
export function gateProgram(spec: CgroupGateSpec, point: AttachPoint, cell: number): Buffer {
  const incoming = point === 'ingress'
  const peers = spec.peers.map(addressBytes)
  const isPeer = (peer: Buffer, i: number, addressOffset: number): (Instruction | string)[] => {
    const words = Array.from({ length: peer.length / 4 }, (_, word) => word * 4)
    const compare = words.flatMap(at => [
      loadWord(R1, HEADER + addressOffset + at),
      ifDifferent(R1, peer.readInt32LE(at), `not-peer-${i}`),
    ])
    return [...compare, go('pass'), `not-peer-${i}`]
  }
  const portOffset = incoming ? 2 : 0
  return assemble([
    move(R6, R1),
    set(2, 0),
    ...copy(20, HEADER),
    loadByte(R7, HEADER),
    move(R1, R7),
    and(R1, 0xf0),
    ifEqual(R1, 0x60, 'ipv6'),
    ifDifferent(R1, 0x40, 'shut'),
    // IPv4: a later fragment has no ports, and is of no use without the first one.
    loadByte(R1, HEADER + 9),
    ifDifferent(R1, IPPROTO_TCP, 'pass'),
    ...peers.flatMap((peer, i) => (peer.length === 4 ? isPeer(peer, i, incoming ? 12 : 16) : [])),
    and(R7, 0x0f),
    shiftLeft(R7, 2),
    add(R7, portOffset),
    go('port'),
    'ipv6',
    set(2, 0),
    ...copy(40, HEADER),
    loadByte(R1, HEADER + 6),
    // ICMPv6 and UDP pass; TCP is looked at; behind an extension header it can't be, and is dropped.
    ifEqual(R1, 58, 'pass'),
    ifEqual(R1, 17, 'pass'),
    ifDifferent(R1, IPPROTO_TCP, 'shut'),
    ...peers.flatMap((peer, i) => (peer.length === 16 ? isPeer(peer, i, incoming ? 8 : 24) : [])),
    set(R7, 40 + portOffset),
    'port',
    move(2, R7),
    ...copy(2, PORT),
    loadHalf(R1, PORT),
    ...spec.ports.map(port => ifEqual(R1, ((port & 0xff) << 8) | (port >> 8), 'deadline')),
    go('pass'),
    'deadline',
    call(FN_KTIME_GET_BOOT_NS),
    // The address of the map's only value: BPF_LD_IMM64 with BPF_PSEUDO_MAP_VALUE.
    { code: 0x18, dst: R1, src: 2, imm: cell },
    { code: 0 },
    { code: 0x79, dst: R1, src: R1 },
    { code: 0x2d, dst: R1, src: R0, to: 'pass' },
    'shut',
    set(R0, 0),
    exit,
    'pass',
    set(R0, 1),
    exit,
  ])
}

/** A TCP segment with its Ethernet header, as the program would see it: the remote end is `remote`. */
function testFrame(packet: { point: AttachPoint; remote: string; port: number }): Buffer {
  const isIpv4 = familyOf(packet.remote) === 4
  const incoming = packet.point === 'ingress'
  const header = Buffer.alloc(isIpv4 ? 20 : 40)
  header[0] = isIpv4 ? 0x45 : 0x60
  header[isIpv4 ? 9 : 6] = IPPROTO_TCP
  const [source, destination] = isIpv4 ? [12, 16] : [8, 24]
  addressBytes(packet.remote).copy(header, incoming ? source : destination)
  const segment = Buffer.alloc(20)
  segment.writeUInt16BE(packet.port, incoming ? 2 : 0)
  const ethernet = Buffer.alloc(14)
  ethernet.writeUInt16BE(isIpv4 ? 0x0800 : 0x86dd, 12)
  return Buffer.concat([ethernet, header, segment])
}
