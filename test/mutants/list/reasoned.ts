import type { Mutant } from '../list.ts'

/** Rules that no search had shown necessary, kept by reasoning: here is what kills them. */
export const reasoned: readonly Mutant[] = [
  {
    id: 'promise-to-the-peer-not-durable',
    breaks: "An acceptor's promise to the other host is forgotten in a crash.",
    edits: [
      {
        file: 'shared/protocol/step.ts',
        before: '    } else persist(turn, { promised, acc })\n',
        after: '    } else s.durable = { ...s.durable, promised, acc }\n',
      },
    ],
    checks: [{ by: 'tests', files: ['test/scenarios/lease.test.ts'] }, { by: 'interruptions' }, { by: 'sim' }],
  },
  {
    id: 'killed-only-when-committed',
    breaks: 'An accepted value that names the other host shuts nothing until it is known to be committed.',
    edits: [
      {
        file: 'shared/protocol/obedience.ts',
        before: '  if (value.primary === s.node) return\n',
        after: '  if (value.primary === s.node || s.durable.known?.value.primary === s.node) return\n',
      },
      {
        file: 'shared/protocol/facts.ts',
        before: 'export const otherIsNamed = (s: HostState): boolean => acceptedValue(s)?.primary === s.peer',
        after: 'export const otherIsNamed = (s: HostState): boolean => knownValue(s)?.primary === s.peer',
      },
    ],
    checks: [{ by: 'tests', files: ['test/scenarios/office.test.ts'] }, { by: 'interruptions' }, { by: 'sim' }],
  },
  {
    id: 'frozen-rather-than-dead-at-a-handover',
    breaks: 'A planned hand-over leaves the database running behind the frozen gate.',
    edits: [
      {
        file: 'shared/protocol/vacating.ts',
        before: "    startDatabaseOp(turn, { op: 'drain' })\n    return\n  }\n  killDatabase(turn)\n",
        after:
          "    startDatabaseOp(turn, { op: 'drain' })\n    return\n  }\n  if (vacate.kind === 'planned') s.vacate = { ...vacate, end: s.database.view.end, killedAt: turn.now }\n  else killDatabase(turn)\n",
      },
    ],
    checks: [{ by: 'tests', files: ['test/scenarios/office.test.ts'] }, { by: 'interruptions' }, { by: 'sim' }],
  },
  {
    id: 'timelines-not-compared',
    breaks: 'A flush position on another timeline counts: a diverged standby acknowledges what it does not have.',
    edits: [
      {
        file: 'shared/protocol/lease.ts',
        before: 'if (beat.timeline === 0 || view.end.timeline !== beat.timeline) {',
        after: 'if (beat.timeline < 0) {',
      },
      {
        file: 'shared/protocol/primary-conditions.ts',
        before:
          '    ack.flushed.timeline !== s.database.view.end.timeline ||\n    s.database.view.sender.timeline !== ack.flushed.timeline\n',
        after: '    s.database.view.sender.timeline < 0\n',
      },
      {
        file: 'shared/protocol/database.ts',
        before: 'if (view.sender.timeline !== barrier.timeline || view.sender.flushedLsn < barrier.lsn) return',
        after: 'if (view.sender.flushedLsn < barrier.lsn) return',
      },
      {
        file: 'shared/protocol/primary-conditions.ts',
        before: 'const hasAll = ack.flushed.timeline === vacate.end.timeline && notBefore(ack.flushed, vacate.end)',
        after: 'const hasAll = ack.flushed.lsn >= vacate.end.lsn',
      },
    ],
    checks: [{ by: 'tests', files: ['test/scenarios/replication.test.ts'] }, { by: 'interruptions' }, { by: 'sim' }],
  },
  {
    id: 'member-change-from-an-unconfirmed-value',
    breaks: 'A member is changed from the best value of phase 1 although it is not known to be committed.',
    edits: [
      {
        file: 'shared/protocol/changes.ts',
        before: 'best.value.successor || best.ballot !== knownBallot(s) || isResigned(s)) {',
        after: 'best.value.successor || isResigned(s)) {',
      },
    ],
    checks: [{ by: 'tests', files: ['test/unit/protocol-tables.test.ts'] }, { by: 'sim' }],
  },
  {
    id: 'grow-without-the-backups-confirm',
    breaks: 'A backup that has booted is made the successor before it finished a round of its own in this boot.',
    edits: [
      {
        file: 'shared/protocol/primary-conditions.ts',
        before:
          "  if (s.lease.ack?.confirmed !== true) return 'the backup has not confirmed the register since it booted'\n  return null\n",
        after: '  return null\n',
      },
    ],
    checks: [{ by: 'tests', files: ['test/scenarios/replication.test.ts'] }, { by: 'sim' }],
  },
]
