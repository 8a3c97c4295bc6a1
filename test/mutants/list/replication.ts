import type { Mutant } from '../list.ts'

/** Synchronous replication: which commits may be acknowledged, and what may be shown. */
export const replication: readonly Mutant[] = [
  {
    id: 'proof-outlives-the-emptying',
    breaks: 'A Grow rests on a proof of synchronous replication that is about to be void: the names are being emptied.',
    edits: [
      {
        file: 'shared/protocol/effects.ts',
        before:
          "if (op.op === 'syncNames' && op.set === 'empty') s.database = { ...s.database, barrier: null, passedBy: '' }",
        after: '',
      },
    ],
    checks: [{ by: 'search' }],
  },
  {
    id: 'asynchronous-before-the-shrink',
    breaks: 'Commits stop waiting for a silent backup before it is known to be ineligible.',
    edits: [
      {
        file: 'shared/protocol/database.ts',
        before: 'if (nobodyMaySucceed(s) && backupIsLost(s, now))',
        after: 'if (backupIsLost(s, now))',
      },
    ],
    checks: [{ by: 'tests', files: ['test/scenarios/replication.test.ts'] }, { by: 'interruptions' }, { by: 'sim' }],
  },
  {
    id: 'names-emptied-at-the-accepted-shrink',
    breaks: 'Names are emptied once the shrink is accepted here, before it is committed.',
    edits: [
      {
        file: 'shared/protocol/facts.ts',
        before:
          'return knownValue(s)?.successor === false && acceptedValue(s)?.successor === false && s.openGrow <= knownBallot(s)',
        after: 'return acceptedValue(s)?.successor === false && s.openGrow <= knownBallot(s)',
      },
    ],
    checks: [{ by: 'tests', files: ['test/scenarios/replication.test.ts'] }, { by: 'interruptions' }, { by: 'sim' }],
  },
  {
    id: 'grow-open-ignored',
    breaks: 'While a grow is in doubt the primary acts as if nobody could succeed it.',
    edits: [
      {
        file: 'shared/protocol/facts.ts',
        before:
          'return knownValue(s)?.successor === false && acceptedValue(s)?.successor === false && s.openGrow <= knownBallot(s)',
        after: 'return knownValue(s)?.successor === false',
      },
    ],
    checks: [{ by: 'tests', files: ['test/scenarios/lease.test.ts'] }, { by: 'interruptions' }, { by: 'sim' }],
  },
  {
    id: 'pin-means-asynchronous',
    breaks: 'With the witness away commits no longer wait for a healthy backup: a hand-over loses them.',
    edits: [
      {
        file: 'shared/protocol/database.ts',
        before: 'const backupIsLost = (s: HostState, now: number): boolean =>\n',
        after: 'const backupIsLost = (s: HostState, now: number): boolean =>\n  s.witness.pinned ||\n',
      },
      {
        file: 'shared/protocol/database.ts',
        before: 'return syncRequired(s) || backupKeepsUp(s, now)\n',
        after: 'return syncRequired(s) || (backupKeepsUp(s, now) && !s.witness.pinned)\n',
      },
    ],
    checks: [{ by: 'tests', files: ['test/scenarios/replication.test.ts'] }, { by: 'interruptions' }, { by: 'sim' }],
  },
  {
    id: 'barrier-skipped',
    breaks: 'A grow believes the configured names: commits that did not wait are not on the successor.',
    edits: [
      {
        file: 'shared/protocol/primary-conditions.ts',
        before: "if (!barrierPassed(s)) return 'synchronous replication is not proven in force'",
        after: "if (s.database.view.syncNames !== 'set') return 'the names are not set'",
      },
    ],
    checks: [{ by: 'tests', files: ['test/scenarios/replication.test.ts'] }, { by: 'interruptions' }, { by: 'sim' }],
  },
  {
    id: 'barrier-not-flushed',
    breaks: 'A grow does not wait until the backup has flushed past the barrier.',
    edits: [
      {
        file: 'shared/protocol/database.ts',
        before: 'if (view.sender.timeline !== barrier.timeline || view.sender.flushedLsn < barrier.lsn) return',
        after: 'if (view.sender.timeline !== barrier.timeline) return',
      },
    ],
    checks: [{ by: 'tests', files: ['test/scenarios/replication.test.ts'] }, { by: 'interruptions' }, { by: 'sim' }],
  },
  {
    id: 'no-hold-after-a-start',
    breaks: 'After a restart clients read commits that were never acknowledged and that a takeover then loses.',
    edits: [
      {
        file: 'shared/protocol/facts.ts',
        before: '(!syncRequired(s) || barrierPassed(s))',
        after: '(!syncRequired(s) || s.database.barrier !== undefined)',
      },
    ],
    checks: [{ by: 'tests', files: ['test/scenarios/replication.test.ts'] }, { by: 'interruptions' }, { by: 'sim' }],
  },
  {
    id: 'sync-remembered-over-an-agent-restart',
    breaks: 'A new agent takes over that synchronous replication was proven by the one before.',
    edits: [
      {
        file: 'shared/protocol/step.ts',
        before: "  s.database = { ...s.database, view: event.view, ran: event.view.process === 'primary' }\n",
        after:
          "  s.database = { ...s.database, view: event.view, ran: event.view.process === 'primary' }\n  if (event.view.process === 'primary' && event.view.syncNames === 'set')\n    s.database = {\n      ...s.database,\n      barrier: { timeline: event.view.end.timeline, lsn: 0 },\n      passedBy: knownValue(s)?.voters[s.peer] ?? '',\n    }\n",
      },
    ],
    checks: [{ by: 'tests', files: ['test/scenarios/replication.test.ts'] }, { by: 'interruptions' }, { by: 'sim' }],
  },
  {
    id: 'flush-figure-from-before-a-wipe',
    breaks: 'What the lost store of the backup had flushed is counted for the new, empty one.',
    edits: [
      {
        file: 'shared/protocol/database.ts',
        before:
          'if (barrier === null || admitted === null || passedBy === admitted || view.sender === null || !peerIsAdmitted(s))\n    return\n',
        after: 'if (barrier === null || admitted === null || view.sender === null) return\n',
      },
      {
        file: 'shared/protocol/facts.ts',
        before: "s.database.barrier !== null && s.database.passedBy !== '' && s.database.passedBy === peerVoter(s)",
        after: "s.database.barrier !== null && s.database.passedBy !== ''",
      },
    ],
    checks: [{ by: 'tests', files: ['test/unit/protocol-tables.test.ts'] }, { by: 'sim' }],
  },
  {
    id: 'handover-without-the-end-of-the-log',
    breaks: 'A pinned primary hands over to a backup that lacks acknowledged writes.',
    edits: [
      {
        file: 'shared/protocol/primary-conditions.ts',
        before: "  return v.successor && (vacate.kind === 'failure' || now - vacate.killedAt > s.timing.drainMs)",
        after: "  return vacate.kind === 'failure' || now - vacate.killedAt > s.timing.drainMs",
      },
    ],
    checks: [{ by: 'tests', files: ['test/scenarios/replication.test.ts'] }, { by: 'interruptions' }, { by: 'sim' }],
  },
  {
    id: 'started-in-another-epoch',
    breaks: 'A cluster of an epoch that is over is started on its old timeline instead of a new one.',
    edits: [
      {
        file: 'shared/protocol/database.ts',
        before: 'const owner = view.epoch === known.epoch\n',
        after: 'const owner = view.epoch !== 0\n',
      },
      {
        file: 'shared/protocol/database.ts',
        before: "? { op: 'startPrimary', epoch: known.epoch, syncNames }",
        after: "? { op: 'startPrimary', epoch: view.epoch, syncNames }",
      },
      {
        file: 'shared/protocol/facts.ts',
        before: 'export const ownEpoch = (s: HostState): boolean => s.database.view.epoch === knownValue(s)?.epoch',
        after: 'export const ownEpoch = (s: HostState): boolean => s.database.view.epoch >= 0',
      },
    ],
    checks: [{ by: 'tests', files: ['test/scenarios/office.test.ts'] }, { by: 'interruptions' }, { by: 'sim' }],
  },
  {
    id: 'resigned-but-in-the-way',
    breaks: 'A primary that resigned goes on reading its doubts, with a higher ballot than the backup that stands.',
    edits: [
      {
        file: 'shared/protocol/duties.ts',
        before: 'if (leavesTheRegister(s, now) || mayStandAlone(s, now)) return null',
        after: 'if (mayStandAlone(s, now)) return null',
      },
    ],
    checks: [{ by: 'tests', files: ['test/scenarios/office.test.ts'] }],
  },
  {
    id: 'resigned-with-the-database-alive',
    breaks: 'A primary resigns before the last process of its database is dead.',
    edits: [
      {
        file: 'shared/protocol/vacating.ts',
        before: "if (!isResigned(s) || known === null || s.database.view.process !== 'none') return",
        after: 'if (!isResigned(s) || known === null) return',
      },
      {
        file: 'shared/protocol/vacating.ts',
        before: '  if (vacate.end === null) {\n    driveStop(turn, vacate)\n    return\n  }\n',
        after: '  if (vacate.end === null) driveStop(turn, vacate)\n',
      },
    ],
    checks: [{ by: 'tests', files: ['test/scenarios/office.test.ts'] }, { by: 'interruptions' }, { by: 'sim' }],
  },
]
