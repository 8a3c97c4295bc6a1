import type { Mutant } from '../list.ts'

/** F1 to F13, and what seeds found since: each was a violation once, and led to the rule that its mutant takes away. */
export const foundBefore: readonly Mutant[] = [
  {
    id: 'f1-handover-to-any-store',
    breaks: 'A primary hands over to a peer that has been re-imaged meanwhile and is empty.',
    edits: [
      {
        file: 'shared/protocol/primary-conditions.ts',
        before: 'if (ack === null || !ack.promise || !ack.confirmed || ack.inc !== v.voters[s.peer]) return false',
        after: 'if (ack === null) return false',
      },
      {
        file: 'shared/protocol/primary-conditions.ts',
        before:
          'if (ack.seq <= vacate.killedSeq || (s.openGrow > Math.max(knownBallot(s), 0) && !v.successor)) return false',
        after: 'if (s.openGrow > Math.max(knownBallot(s), 0) && !v.successor) return false',
      },
    ],
    checks: [{ by: 'tests', files: ['test/scenarios/takeover.test.ts'] }, { by: 'interruptions' }, { by: 'sim' }],
  },
  {
    id: 'f2-served-on-own-word-after-boot',
    breaks: 'A pinned primary crashes, an operator forces the other host, the first one boots and serves.',
    edits: [
      {
        file: 'shared/protocol/facts.ts',
        before:
          "export const confirmed = (s: HostState): boolean => s.boot !== '' && s.durable.confirmedBoot === s.boot",
        after: "export const confirmed = (s: HostState): boolean => s.boot !== '' && s.durable.confirmedBoot !== ''",
      },
    ],
    checks: [{ by: 'interruptions' }, { by: 'sim' }],
  },
  {
    id: 'f3-learning-confirms',
    breaks: 'A value heard of, perhaps before the boot, counts as a round of this boot.',
    edits: [
      {
        file: 'shared/protocol/proposer.ts',
        before: 'persist(turn, { known: { ballot, value }, ...(newer && { acc: { ballot, value } }) })',
        after:
          'persist(turn, { known: { ballot, value }, confirmedBoot: s.boot, ...(newer && { acc: { ballot, value } }) })',
      },
    ],
    checks: [{ by: 'tests', files: ['test/scenarios/takeover.test.ts'] }, { by: 'interruptions' }, { by: 'sim' }],
  },
  {
    id: 'f4-sealed-too-early',
    breaks:
      'A forced takeover is shown as sealed before the witness holds the new gen; the old primary is let on too early.',
    edits: [
      {
        file: 'shared/protocol/status.ts',
        before: 'sealed: isSealed(s),',
        after: 'sealed: true,',
      },
    ],
    checks: [{ by: 'tests', files: ['test/scenarios/takeover.test.ts'] }, { by: 'interruptions' }, { by: 'sim' }],
  },
  {
    id: 'sealed-where-the-other-is-alone',
    breaks:
      'A forced takeover is sealed as it is made where the overruled value had no witness, whoever its members were.',
    edits: [
      {
        file: 'shared/protocol/operator.ts',
        before: 'const sealed = outvotedBy(s, standing)',
        after: 'const sealed = standing.w === undefined || outvoted(standing)',
      },
    ],
    checks: [{ by: 'tests', files: ['test/unit/protocol-commands.test.ts'] }, { by: 'sim' }],
  },
  {
    id: 'accepted-value-not-overruled',
    breaks: 'A forced takeover is sealed over the value that this host knows, whatever it had accepted since.',
    edits: [
      {
        file: 'shared/protocol/operator.ts',
        before: 'return outvotedBy(s, known.voters) ? newest.voters : known.voters',
        after: 'return known.voters',
      },
    ],
    checks: [{ by: 'tests', files: ['test/unit/protocol-commands.test.ts'] }, { by: 'sim' }],
  },
  {
    id: 'forced-over-an-unheard-gen',
    breaks: 'An operator forces a host that has only heard of an earlier forced takeover, without a word about it.',
    edits: [
      {
        file: 'shared/protocol/operator.ts',
        before: 'if (command.gen < heard)',
        after: 'if (command.gen < 0)',
      },
    ],
    checks: [{ by: 'tests', files: ['test/unit/protocol-commands.test.ts'] }, { by: 'sim' }],
  },
  {
    id: 'f5-candidacy-forgotten',
    breaks: 'A candidate restarts, forgets its candidacy, acknowledges heartbeats, and is chosen all the same.',
    edits: [
      {
        file: 'shared/protocol/step.ts',
        before: 'if (inDoubt(s) && knownValue(s)?.primary === s.peer) {',
        after: 'if (s.started && s.startedAt < 0) {',
      },
    ],
    checks: [{ by: 'interruptions' }, { by: 'sim' }],
  },
  {
    id: 'f6-one-trip-accepted-before-the-witness',
    breaks: 'A one-trip takeover is accepted locally before the witness answered, so it may survive a refusal.',
    edits: [
      {
        file: 'shared/protocol/proposer.ts',
        before: "s.round = { ...round, phase: 'cas', best: acc, value: ready.value }",
        after:
          "s.round = { ...round, phase: 'cas', best: acc, value: ready.value }\n  persist(turn, { acc: { ballot: round.ballot, value: ready.value } })",
      },
    ],
    checks: [{ by: 'sim' }, { by: 'interruptions' }],
  },
  {
    id: 'f7-resign-in-memory-only',
    breaks: 'A resign is kept in memory only: after a crash the host serves on beside the one that took over.',
    edits: [
      {
        file: 'shared/protocol/vacating.ts',
        before: 'persist(turn, { resigned: version })',
        after: 's.durable = { ...s.durable, resigned: version }',
      },
    ],
    checks: [{ by: 'interruptions' }, { by: 'sim' }],
  },
  {
    id: 'shrink-in-doubt-never-resigned',
    breaks: 'A primary that goes deaf as its shrink is accepted leaves nobody who may go on.',
    edits: [
      {
        file: 'shared/protocol/vacating.ts',
        before: 'failure ?? deafInDoubt(s)',
        after: 'failure',
      },
    ],
    checks: [{ by: 'tests', files: ['test/scenarios/takeover.test.ts'] }, { by: 'sim' }],
  },
  {
    id: 'resign-leaves-the-doubt-out',
    breaks: 'A primary resigns from the version that it knows, and the register has moved on to its own shrink.',
    edits: [
      {
        file: 'shared/protocol/vacating.ts',
        before: 'const { version } = shrinkInDoubt(s) ?? known',
        after: 'const { version } = known',
      },
    ],
    checks: [{ by: 'tests', files: ['test/scenarios/takeover.test.ts'] }, { by: 'sim' }],
  },
  {
    id: 'serves-what-it-resigned-from',
    breaks:
      'A primary that resigned from its shrink in doubt goes on by the version before it, or by that one, once it is heard.',
    edits: [
      {
        file: 'shared/protocol/facts.ts',
        before: 'return resigned === known.version || resigned === known.version + 1',
        after: 'return resigned === known.version',
      },
    ],
    checks: [{ by: 'tests', files: ['test/scenarios/takeover.test.ts'] }, { by: 'sim' }],
  },
  {
    id: 'stays-resigned-for-ever',
    breaks: 'A primary that resigned from its shrink in doubt, and was not heard, never serves again.',
    edits: [
      {
        file: 'shared/protocol/changes.ts',
        before: '(!v.successor && v.version !== s.durable.resigned)',
        after: '!v.successor',
      },
    ],
    checks: [{ by: 'tests', files: ['test/scenarios/takeover.test.ts'] }, { by: 'sim' }],
  },
  {
    id: 'f8-resign-of-an-old-version',
    breaks: 'A resign that was overtaken by a shrink and a grow is honoured: the backup stands against its promise.',
    edits: [
      {
        file: 'shared/protocol/backup.ts',
        before: 'if (known.gen !== resign.gen || known.epoch !== resign.epoch || isOlder(resign, known)) return',
        after: 'if (known.gen !== resign.gen || known.epoch !== resign.epoch || isOlder(known, known)) return',
      },
      {
        file: 'shared/protocol/changes.ts',
        before: 'if (resigned !== 0 && resigned !== v.version && resigned !== v.version + 1) {',
        after: 'if (resigned < 0) {',
      },
    ],
    checks: [{ by: 'tests', files: ['test/scenarios/takeover.test.ts'] }, { by: 'interruptions' }, { by: 'sim' }],
  },
  {
    id: 'f9-rolled-back-witness-counts',
    breaks: 'A witness that answers lower than before, because its volume was set back, keeps its vote.',
    edits: [{ file: 'shared/protocol/witness-link.ts', before: 'if (shows < seen) {', after: 'if (shows < 0) {' }],
    checks: [{ by: 'tests', files: ['test/scenarios/takeover.test.ts'] }, { by: 'interruptions' }, { by: 'sim' }],
  },
  {
    id: 'f10a-round-without-a-time-limit',
    breaks: 'A round that cannot end blocks its owner for ever.',
    edits: [
      {
        file: 'shared/protocol/proposer.ts',
        before: 'if (now - s.round.startedAt > s.timing.roundLimitMs) {',
        after: 'if (now < s.round.startedAt) {',
      },
    ],
    checks: [{ by: 'tests', files: ['test/scenarios/lease.test.ts'] }],
  },
  {
    id: 'f10b-doubt-left-lying',
    breaks: 'An own change whose outcome is not known is never read again.',
    edits: [
      {
        file: 'shared/protocol/duties.ts',
        before: "if (inDoubt(s)) return { change: 'confirm', ground: 'doubt' }",
        after: '',
      },
    ],
    checks: [{ by: 'interruptions' }, { by: 'sim' }],
  },
  {
    id: 'removed-host-stays-in-doubt',
    breaks: 'A host that was removed while it read the register never learns what became of its proposal.',
    edits: [
      {
        file: 'shared/protocol/duties.ts',
        before: "if (inDoubt(s)) return { change: 'confirm', ground: 'doubt' }",
        after:
          "if (inDoubt(s) && acc.value.voters[s.node] === s.durable.inc) return { change: 'confirm', ground: 'doubt' }",
      },
    ],
    checks: [{ by: 'tests', files: ['test/scenarios/leaving.test.ts'] }, { by: 'sim' }],
  },
  {
    id: 'backup-reads-only-after-its-wait',
    breaks: 'A backup that was away for a moment can be handed the place only a lease after it is back.',
    edits: [
      {
        file: 'shared/protocol/duties.ts',
        before: '(hearsPrimary(s, now) && s.durable.acc?.ballot === knownBallot(s))',
        after: 'false',
      },
    ],
    checks: [{ by: 'tests', files: ['test/scenarios/replication.test.ts'] }, { by: 'sim' }],
  },
  {
    id: 'f11-ack-tied-to-the-version',
    breaks: 'An acknowledgement of another version does not count: the lease is lost around each change.',
    edits: [
      {
        file: 'shared/protocol/lease.ts',
        before: 'if (!ack.promise || ack.inc !== peerVoter(s) || !sameReign(ack, known)) return',
        after: 'if (!ack.promise || ack.inc !== peerVoter(s) || ack.version !== known.version) return',
      },
    ],
    checks: [{ by: 'tests', files: ['test/scenarios/takeover.test.ts'] }, { by: 'interruptions' }, { by: 'sim' }],
  },
  {
    id: 'f12-member-changed-from-an-uncommitted-value',
    breaks: 'A member is changed from a value that nobody knows to be committed, beside a successor.',
    edits: [
      {
        file: 'shared/protocol/changes.ts',
        before:
          'if (next.primary !== s.node || best.value.successor || best.ballot !== knownBallot(s) || isResigned(s)) {',
        after: 'if (next.primary !== s.node || isResigned(s)) {',
      },
      {
        file: 'shared/protocol/duties.ts',
        before: 'if (known === null || known.successor || rightToServe(s, now) === null) return null',
        after: 'if (known === null || rightToServe(s, now) === null) return null',
      },
      {
        file: 'shared/protocol/duties.ts',
        before: 'if (known.successor) {\n    const ground = shrinkGround(turn)',
        after:
          'if (known.successor) {\n    const wish = memberWish(s, now)\n    if (wish !== null) return wish\n    const ground = shrinkGround(turn)',
      },
    ],
    checks: [{ by: 'interruptions' }, { by: 'sim' }],
  },
  {
    id: 'f13-grow-in-doubt-forgotten',
    breaks:
      'A grow was sent, a shrink accepted locally, a crash: the host looks pinned while the grow can still be chosen. (Here an own change in doubt is read before anything else, which goes too.)',
    edits: [
      {
        file: 'shared/protocol/step.ts',
        before: 's.openGrow = inDoubt(s) ? s.durable.lastOwn : 0',
        after: 's.openGrow = 0',
      },
      {
        // The core reads a change in doubt before it wants another one, so that the rule above alone is never needed.
        file: 'shared/protocol/duties.ts',
        before: "if (inDoubt(s)) return { change: 'confirm', ground: 'doubt' }",
        after: "if (inDoubt(s)) return { change: holdsOffice(s) ? 'shrink' : 'confirm', ground: 'doubt' }",
      },
    ],
    checks: [{ by: 'search' }, { by: 'interruptions' }, { by: 'sim' }],
  },
  {
    id: 'r78-hand-over-outbids-a-silent-backup',
    breaks:
      'A planned hand-over goes on asking while its backup is silent, and outbids its takeover as the network is back.',
    edits: [
      {
        file: 'shared/protocol/primary-conditions.ts',
        before: "  s.vacate?.kind === 'planned' &&\n",
        after: '  s.vacate !== null &&\n  s.startedAt < 0 &&\n',
      },
    ],
    checks: [{ by: 'tests', files: ['test/scenarios/leaving.test.ts'] }],
  },
  {
    id: 'r78-taken-back-as-the-backup-stands',
    breaks: 'With long leases a hand-over that the backup did not hear of is taken back before that one may stand.',
    edits: [
      {
        file: 'shared/protocol/timing.ts',
        before: 'switchoverLimitMs: Math.max(3000, leaseMs * 2)',
        after: 'switchoverLimitMs: 3000',
      },
      { file: 'shared/protocol/timing.ts', before: 'handOverUnheardMs(t) < t', after: '0 < t' },
    ],
    checks: [{ by: 'tests', files: ['test/scenarios/leaving.test.ts'] }],
  },
  {
    id: 'slow-database-killed-where-nobody-could-go-on',
    breaks: 'A primary that stands alone kills its database as soon as that is slow, again and again.',
    edits: [
      {
        file: 'shared/protocol/vacating.ts',
        before: '(view.stuck || couldBeReplaced(s, now))',
        after: '(view.stuck || couldBeReplaced(s, now) || view.hanging)',
      },
    ],
    checks: [{ by: 'tests', files: ['test/scenarios/office.test.ts'] }],
  },
  {
    id: 'stuck-database-left-alone',
    breaks: 'A primary that stands alone never starts a database anew that will not answer any more.',
    edits: [
      {
        file: 'shared/protocol/vacating.ts',
        before: '(view.stuck || couldBeReplaced(s, now))',
        after: '(couldBeReplaced(s, now) && !view.stuck)',
      },
    ],
    checks: [{ by: 'tests', files: ['test/scenarios/office.test.ts'] }],
  },
]
