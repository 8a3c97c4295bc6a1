import type { Host } from '../host.ts'
import { noWrite, recordBytes } from '../wal.ts'
import { type MakeChecker, Violation } from './check.ts'

/** I5: nothing that was read from a serving primary disappears later. What a cancelled wait shows is not counted: it is shown with a warning. */
export const seenKept: MakeChecker = pair => {
  const look = (host: Host): void => {
    if (host.cluster.process !== 'primary') return
    const lack = pair.seen.lackingIn(host.cluster.log)
    if (lack !== null) {
      throw new Violation('I5', `${host.node} serves and lacks what was read at ${lack.tl.number}/${lack.lsn}`)
    }
  }
  return {
    name: 'I5',
    gateOpened: look,
    answers: host => {
      if (host.gate.isOpen) look(host)
    },
    read: (_, cluster) => {
      const { tl } = cluster.log
      let lsn = cluster.visible
      while (lsn > 0 && tl.writeEndingAt(lsn) === noWrite) lsn -= recordBytes
      if (lsn > 0) pair.seen.note(tl, lsn)
    },
  }
}
