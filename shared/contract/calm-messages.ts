import { genMax, roundMax } from '../protocol/ballot.ts'
import type { Ack, Heartbeat, WalPosition } from '../protocol/types.ts'
import { isIncarnation } from './protocol.ts'

/**
 * The two messages of a pair in calm, of which each host hears ten a second, read without the schema: there each field is
 * code of its own, and on a core that has slept meanwhile all of it comes from afar. Nothing is taken here that the schema
 * would not take, with the same outcome (test/unit/calm-messages.test.ts); whatever is not as in calm is left to it.
 */
export function readCalmMessage(value: unknown): Heartbeat | Ack | null {
  if (typeof value !== 'object' || value === null || !('kind' in value)) return null
  if (value.kind === 'heartbeat') return readHeartbeat(value)
  return value.kind === 'ack' ? readAck(value) : null
}

type Unknown<T> = { [K in keyof T]?: unknown }

function readHeartbeat(value: Unknown<Heartbeat>): Heartbeat | null {
  const { gen, epoch, version, inc, nonce, seq, timeline, databaseUp, serving, holdsLease, leaseMs, note } = value
  if (!isCount(gen, genMax) || !isCount(epoch) || !isCount(version, roundMax) || !isIncarnation(inc)) return null
  if (!isCount(nonce) || !isCount(seq) || !isCount(timeline) || !isCount(leaseMs)) return null
  if (databaseUp !== true || serving !== true || holdsLease !== true || note !== 'steady') return null
  return {
    kind: 'heartbeat',
    gen,
    epoch,
    version,
    inc,
    nonce,
    seq,
    timeline,
    databaseUp,
    serving,
    holdsLease,
    leaseMs,
    note,
  }
}

function readAck(value: Unknown<Ack>): Ack | null {
  const { gen, epoch, version, inc, nonce, seq, promise, why, streaming, confirmed, witness, uplink, asks } = value
  if (!isCount(gen, genMax) || !isCount(epoch) || !isCount(version, roundMax) || !isIncarnation(inc)) return null
  if (!isCount(nonce) || !isCount(seq) || promise !== true || why !== '') return null
  if (streaming !== true || confirmed !== true || witness !== 'yes' || uplink !== true || asks !== 'nothing')
    return null
  const flushed = readPosition(value.flushed)
  if (flushed === null) return null
  return {
    kind: 'ack',
    gen,
    epoch,
    version,
    inc,
    nonce,
    seq,
    promise,
    why,
    flushed,
    streaming,
    confirmed,
    witness,
    uplink,
    asks,
  }
}

function readPosition(value: unknown): WalPosition | null {
  if (typeof value !== 'object' || value === null) return null
  const { timeline, lsn }: Unknown<WalPosition> = value
  return isCount(timeline) && isCount(lsn) ? { timeline, lsn } : null
}

const isCount = (value: unknown, max = Number.MAX_SAFE_INTEGER): value is number =>
  Number.isSafeInteger(value) && (value as number) >= 0 && (value as number) <= max
