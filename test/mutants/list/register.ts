import type { Mutant } from '../list.ts'

/** The acceptor, the proposer and what a candidate may do. */
export const register: readonly Mutant[] = [
  {
    id: 'persist-after-send',
    breaks: 'A promise or a vote leaves the host before it is on disk.',
    edits: [
      {
        file: 'shared/protocol/step.ts',
        before: '  checkInvariants(state, turn)\n',
        after:
          "  turn.effects.sort((x, y) => Number(x.do === 'persist') - Number(y.do === 'persist'))\n  checkInvariants(state, turn)\n",
      },
    ],
    checks: [{ by: 'interruptions' }, { by: 'sim' }],
  },
  {
    id: 'promised-of-a-proposer-not-durable',
    breaks: 'A host forgets in a crash which ballot it had promised to its own round.',
    edits: [
      {
        file: 'shared/protocol/proposer.ts',
        before: 'persist(turn, { promised: ballot, lastOwn: ballot })',
        after: 'persist(turn, { lastOwn: ballot })\n  s.durable = { ...s.durable, promised: ballot }',
      },
    ],
    checks: [{ by: 'interruptions' }, { by: 'sim' }],
  },
  {
    id: 'last-own-not-durable',
    breaks: 'A host forgets in a crash that a proposal of its own is in doubt, and may use its ballot again.',
    edits: [
      {
        file: 'shared/protocol/proposer.ts',
        before: 'persist(turn, { promised: ballot, lastOwn: ballot })',
        after: 'persist(turn, { promised: ballot })',
      },
    ],
    checks: [{ by: 'interruptions' }, { by: 'sim' }],
  },
  {
    id: 'epoch-not-bumped',
    breaks: 'A takeover leaves the epoch as it was: two primaries of one epoch.',
    edits: [
      {
        file: 'shared/protocol/changes.ts',
        before: 'value: { ...v, version: v.version + 1, epoch: v.epoch + 1, primary: s.node, successor: false } }',
        after: 'value: { ...v, version: v.version + 1, primary: s.node, successor: false } }',
      },
    ],
    checks: [{ by: 'interruptions' }, { by: 'sim' }],
  },
  {
    id: 'foreign-inc-counted',
    breaks: 'The vote of a store that was lost and made anew counts for the one that was admitted.',
    edits: [
      {
        file: 'shared/protocol/facts.ts',
        before: 'if (has[node] === voters[node]) votes += 1',
        after: 'if (has[node] !== undefined) votes += 1',
      },
      { file: 'shared/protocol/acceptor.ts', before: 'if (request.inc !== state.inc) return silent(state)', after: '' },
      {
        file: 'shared/protocol/acceptor.ts',
        before: 'if (state.acc === null && !admits(value, state.inc)) return silent(state)',
        after: '',
      },
    ],
    checks: [{ by: 'interruptions' }, { by: 'sim' }],
  },
  {
    id: 'empty-store-votes',
    breaks: 'A member without any value answers a prepare: an amnesic acceptor votes.',
    edits: [
      { file: 'shared/protocol/acceptor.ts', before: 'if (request.inc !== state.inc) return silent(state)', after: '' },
      {
        file: 'shared/protocol/acceptor.ts',
        before:
          "  if (state.acc === null) return silent(state)\n  const { req, ballot } = request\n  if (ballot < state.promised) return nack(state, request)\n  const promise = { kind: 'promise', req, inc: state.inc, ballot, acc: state.acc } as const",
        after:
          "  const { req, ballot } = request\n  if (ballot < state.promised) return nack(state, request)\n  const promise = { kind: 'promise', req, inc: request.inc, ballot, acc: state.acc } as const",
      },
    ],
    checks: [{ by: 'tests', files: ['test/scenarios/takeover.test.ts'] }, { by: 'interruptions' }, { by: 'sim' }],
  },
  {
    id: 'acceptor-ignores-its-promise',
    breaks: 'A value of a lower ballot than the promised one is accepted.',
    edits: [
      {
        file: 'shared/protocol/acceptor.ts',
        before: 'if (ballot < state.promised || ballot < (state.acc?.ballot ?? 0)) return nack(state, request)',
        after: 'if (ballot < (state.acc?.ballot ?? 0)) return nack(state, request)',
      },
      {
        file: 'shared/protocol/acceptor.ts',
        before:
          'return change({ ...state, promised: ballot, acc: { ballot, value } }, accepted)\n}\n\n/** Prepare and accept',
        after:
          'return change({ ...state, promised: Math.max(ballot, state.promised), acc: { ballot, value } }, accepted)\n}\n\n/** Prepare and accept',
      },
    ],
    checks: [{ by: 'interruptions' }, { by: 'sim' }],
  },
  {
    id: 'compare-and-set-ignores-the-value',
    breaks: 'The one-trip form overwrites a value that its proposer has not seen.',
    edits: [
      {
        file: 'shared/protocol/acceptor.ts',
        before: 'if (ballot > state.promised && state.acc.ballot === expect) {',
        after: 'if (ballot > state.promised && expect > 0) {',
      },
    ],
    checks: [{ by: 'sim' }, { by: 'interruptions' }],
  },
  {
    id: 'takeover-without-being-successor',
    breaks: 'The backup takes over although the primary had made it ineligible and acknowledges alone.',
    edits: [
      {
        file: 'shared/protocol/changes.ts',
        before: 'if (!v.successor && resigned !== v.version) return refused(`version ${v.version} names no successor`)',
        after: '',
      },
    ],
    checks: [{ by: 'interruptions' }, { by: 'sim' }],
  },
  {
    id: 'best-value-ignored',
    breaks: 'A proposer builds on its own value instead of the newest one that phase 1 found.',
    edits: [
      {
        file: 'shared/protocol/proposer.ts',
        before: 'if (promise.acc !== null && (best === null || promise.acc.ballot > best.ballot)) best = promise.acc',
        after: 'if (promise.acc !== null && best === null) best = s.durable.acc',
      },
    ],
    checks: [{ by: 'interruptions' }, { by: 'sim' }],
  },
  {
    id: 'ping-stands-in-for-the-witness',
    breaks: 'Who still reaches its own gateway takes that for the vote of the witness.',
    edits: [
      {
        file: 'shared/protocol/proposer.ts',
        before:
          'if (!quorumOf(round.best.value.voters, round.accepts) || !quorumOf(round.value.voters, round.accepts)) return',
        after:
          "const { w } = round.best.value.voters\n  const votes = round.change === 'takeover' && s.uplink && w !== undefined ? { ...round.accepts, w } : round.accepts\n  if (!quorumOf(round.best.value.voters, votes) || !quorumOf(round.value.voters, votes)) return",
      },
      {
        file: 'shared/protocol/proposer.ts',
        before: '  if (!hasPromisesFor(s, round, best)) return\n',
        after: "  if (!hasPromisesFor(s, round, best) && !(round.change === 'takeover' && s.uplink)) return\n",
      },
    ],
    checks: [{ by: 'tests', files: ['test/scenarios/lease.test.ts'] }, { by: 'interruptions' }, { by: 'sim' }],
  },
  {
    id: 'candidacy-never-closed',
    breaks: 'A refused candidate never acknowledges again: the pair stays unprotected for ever.',
    edits: [
      {
        file: 'shared/protocol/backup.ts',
        before: 'if (s.backup.candidacy && !inDoubt(s)) s.backup = { ...s.backup, candidacy: false }',
        after: '',
      },
    ],
    checks: [{ by: 'interruptions' }, { by: 'sim' }],
  },
  {
    id: 'witness-replaced-in-one-step',
    breaks: 'The old witness goes and the new one comes in one change: two majorities without a common member.',
    edits: [
      {
        file: 'shared/protocol/changes.ts',
        before: '    delete voters[member.node]\n',
        after:
          "    delete voters[member.node]\n    if (member.node === 'w' && s.witness.wanted !== null) voters.w = s.witness.wanted\n",
      },
    ],
    checks: [{ by: 'tests', files: ['test/scenarios/office.test.ts'] }, { by: 'interruptions' }, { by: 'sim' }],
  },
  {
    id: 'one-trip-shrink-by-a-deaf-primary',
    breaks:
      'A primary that cannot hear has its shrink accepted by the witness without learning of it: nobody can take over.',
    edits: [
      {
        file: 'shared/protocol/proposer.ts',
        before: "if (proposal.change === 'takeover') tryOneTrip(turn, acc)",
        after: "if (proposal.change === 'takeover' || proposal.change === 'shrink') tryOneTrip(turn, acc)",
      },
      {
        file: 'shared/protocol/proposer.ts',
        before: '  const ready = takeover(s, round, acc.value)\n',
        after:
          "  const v = acc.value\n  const ready: ReturnType<typeof takeover> =\n    round.change === 'takeover'\n      ? takeover(s, round, v)\n      : { at: 'go', value: { ...v, version: v.version + 1, successor: false } }\n",
      },
    ],
    checks: [{ by: 'tests', files: ['test/scenarios/lease.test.ts'] }, { by: 'interruptions' }, { by: 'sim' }],
  },
  {
    id: 'overruled-goes-on-by-its-own-word',
    breaks: 'A pinned primary goes on serving although the witness shows it that the other host was forced.',
    edits: [
      {
        file: 'shared/protocol/facts.ts',
        before: 'genHeard(s) > known.gen',
        after: 'genHeard(s) < known.gen',
      },
    ],
    checks: [{ by: 'tests', files: ['test/scenarios/takeover.test.ts'] }],
  },
  {
    id: 'gen-of-a-nack-ignored',
    breaks: 'A host that meets a higher gen in an answer goes on serving until it learns of it by itself.',
    edits: [
      {
        file: 'shared/protocol/lease.ts',
        before: "  if (s.gate.set === 'open' || s.gate.set === 'untouched')\n    closeGate(turn, `gen",
        after:
          "  if (gen > 0) return\n  if (s.gate.set === 'open' || s.gate.set === 'untouched')\n    closeGate(turn, `gen",
      },
    ],
    checks: [{ by: 'tests', files: ['test/scenarios/takeover.test.ts'] }, { by: 'interruptions' }, { by: 'sim' }],
  },
  {
    id: 'command-of-another-epoch-obeyed',
    breaks: 'A switchover that was meant for an earlier epoch, and arrives late, moves the primary.',
    edits: [
      {
        file: 'shared/protocol/operator.ts',
        before: 'if (known === null || known.epoch !== epoch) {\n',
        after: 'if (known === null || known.epoch < epoch) {\n',
      },
    ],
    checks: [{ by: 'tests', files: ['test/scenarios/office.test.ts'] }, { by: 'interruptions' }, { by: 'sim' }],
  },
  {
    id: 'wish-outlives-a-standstill',
    breaks: 'A backup that stood still with its clock asks once more for a switchover that was tried meanwhile.',
    edits: [
      {
        file: 'shared/protocol/lease.ts',
        before: "if (beat.note === 'switching' || missedBeats(s, before, beat)) s.duty",
        after: "if (beat.note === 'switching' || missedBeats(s, before, before ?? beat)) s.duty",
      },
    ],
    checks: [{ by: 'tests', files: ['test/unit/protocol-commands.test.ts'] }, { by: 'sim' }],
  },
  {
    id: 'data-given-up-unasked',
    breaks: 'After a forced takeover the old side is rewound before an operator saw what is given up.',
    edits: [
      {
        file: 'shared/protocol/facts.ts',
        before: 'return dataGen !== 0 && dataGen !== known.gen && gaveUpGen !== known.gen',
        after: 'return dataGen < 0 && gaveUpGen !== known.gen',
      },
    ],
    checks: [{ by: 'tests', files: ['test/scenarios/takeover.test.ts'] }, { by: 'interruptions' }, { by: 'sim' }],
  },
]
