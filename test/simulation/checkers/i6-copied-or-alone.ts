import { type MakeChecker, Violation } from './check.ts'
import { show } from './register-truth.ts'

/** I6: a write is acknowledged without the other host's flush only after the Shrink was chosen. */
export const copiedOrAlone: MakeChecker = pair => ({
  name: 'I6',
  acknowledged: (host, commit) => {
    if (commit.copied) return
    const latest = pair.checks.register.latest?.value
    if (latest !== undefined && latest.primary === host.node && !latest.successor) return
    throw new Violation(
      'I6',
      `${host.node} acknowledged the write at ${commit.tl.number}/${commit.lsn} without a copy while the register says ${latest ? show(latest) : 'nothing'}`,
    )
  },
})
