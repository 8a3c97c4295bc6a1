import { showBallot } from '../../shared/protocol/ballot.ts'
import type { DatabaseView, Effect, Event, Message, Value } from '../../shared/protocol/types.ts'

/** Events and effects as one line of a trace. */

const ms = (n: number): string => n.toFixed(1)

export const showValue = (v: Value): string =>
  `{g${v.gen} e${v.epoch} v${v.version} ${v.primary}${v.successor ? '+' : ''} [${Object.values(v.voters).join(' ')}]}`

const showAccepted = (acc: { ballot: number; value: Value } | null): string =>
  acc === null ? 'nothing' : `${showBallot(acc.ballot)} ${showValue(acc.value)}`

export function showMessage(m: Message): string {
  switch (m.kind) {
    case 'prepare':
      return `prepare ${showBallot(m.ballot)} to ${m.inc}`
    case 'accept':
      return `accept ${showBallot(m.ballot)} ${showValue(m.value)} to ${m.inc}`
    case 'cas':
      return `cas ${showBallot(m.ballot)} expecting ${showBallot(m.expect)} ${showValue(m.value)} to ${m.inc}`
    case 'read':
      return `read ${m.inc}`
    case 'promise':
      return `promise ${showBallot(m.ballot)} by ${m.inc}: ${showAccepted(m.acc)}`
    case 'accepted':
      return `accepted ${showBallot(m.ballot)} by ${m.inc}`
    case 'nack':
      return `nack ${showBallot(m.ballot)} by ${m.inc}: promised ${showBallot(m.promised)}`
    case 'state':
      return `state of ${m.inc}: promised ${showBallot(m.promised)}, ${showAccepted(m.acc)}`
    case 'learn':
      return `learn ${showBallot(m.ballot)} ${showValue(m.value)}`
    case 'heartbeat':
      return `heartbeat ${m.seq}/${m.nonce} g${m.gen} e${m.epoch} v${m.version} tl${m.timeline} ${m.note}${m.holdsLease ? ' lease' : ''}${m.serving ? ' serving' : ''}`
    case 'ack':
      return `ack ${m.seq}/${m.nonce} by ${m.inc} ${m.promise ? 'promise' : `no promise (${m.why})`} flushed ${m.flushed.timeline}/${m.flushed.lsn}${m.streaming ? ' streaming' : ''}${m.confirmed ? '' : ' unconfirmed'} w:${m.witness} ${m.asks}`
    case 'resign':
      return `resign g${m.gen} e${m.epoch} v${m.version}`
  }
}

const showView = (v: DatabaseView): string =>
  `${v.process} ${v.end.timeline}/${v.end.lsn} epoch ${v.epoch} names ${v.syncNames}` +
  `${v.sender ? ` sender ${v.sender.session} ${v.sender.timeline}/${v.sender.flushedLsn}` : ''}${v.streaming ? ' streaming' : ''}` +
  `${v.stalledMs > 0 ? ` stalled ${ms(v.stalledMs)}` : ''}${v.hanging ? ' hanging' : ''}${v.ioError ? ' I/O error' : ''}`

export function showEvent(e: Event): string {
  const at = `[${ms(e.now)}]`
  switch (e.event) {
    case 'message':
      return `${at} ${e.from}: ${showMessage(e.message)}`
    case 'view':
      return `${at} view ${showView(e.view)}`
    case 'databaseDone':
      return `${at} database ${e.id} ${e.result.ok ? `done ${JSON.stringify(e.result.position)}` : `failed: ${e.result.why}`}`
    case 'gate':
      return `${at} gate ${e.seq} is ${e.report.state} until ${ms(e.report.expiresUntil)}`
    case 'persisted':
      return `${at} persisted ${e.seq}`
    case 'start':
      return `${at} start boot ${e.boot} nonce ${e.nonce} inc ${e.durable.inc} gate ${e.gate.state} database ${e.view.process}`
    case 'operator':
      return `${at} operator ${JSON.stringify(e.command)}`
    case 'witness':
      return `${at} witness ${e.inc}`
    case 'uplink':
      return `${at} uplink ${e.up ? 'up' : 'down'}`
    case 'clockJump':
      return `${at} clock jump`
    case 'tick':
      return `${at} tick`
  }
}

export function showEffect(e: Effect): string {
  switch (e.do) {
    case 'persist': {
      const d = e.durable
      return `persist ${e.seq}: promised ${showBallot(d.promised)} acc ${showAccepted(d.acc)} known ${showAccepted(d.known)} own ${showBallot(d.lastOwn)}${d.resigned ? ` resigned ${d.resigned}` : ''}`
    }
    case 'send':
      return `to ${e.to}: ${showMessage(e.message)}`
    case 'gate':
      return `gate ${e.seq} ${e.set}${e.set === 'open' ? ` until ${ms(e.until)}` : ''}`
    case 'database':
      return `database ${e.id} ${JSON.stringify(e.op)}`
    case 'answer':
      return `answer ${e.command}: ${e.ok ? 'done' : 'refused'}: ${e.why}`
    case 'vip':
    case 'services':
      return `${e.do} ${e.set}`
    default:
      return e.do
  }
}
