import type { Mutant } from '../list.ts'

/** The lease between the hosts, starts, clock jumps, and giving up. */
export const lease: readonly Mutant[] = [
  {
    id: 'no-wait-after-a-start',
    breaks: 'A host that has just started stands for primary although it may have promised to wait before.',
    edits: [
      {
        file: 'shared/protocol/step.ts',
        before:
          '  s.nSeen = Math.max(roundOf(event.durable.promised), roundOf(event.durable.lastOwn))\n  // What was promised before counts as long as it may have been promised for.\n  s.backup = { ...s.backup, quarantineUntil: now + s.durable.leaseMs }',
        after:
          '  s.nSeen = Math.max(roundOf(event.durable.promised), roundOf(event.durable.lastOwn))\n  s.backup = { ...s.backup, quarantineUntil: now }',
      },
    ],
    checks: [{ by: 'tests', files: ['test/scenarios/replication.test.ts'] }, { by: 'interruptions' }, { by: 'sim' }],
  },
  {
    id: 'wait-of-the-new-profile-only',
    breaks: 'A backup that was given a profile with shorter leases forgets for how long it has promised to wait.',
    edits: [
      {
        file: 'shared/protocol/step.ts',
        before: 'quarantineUntil: now + s.durable.leaseMs }\n  s.gate = {',
        after: 'quarantineUntil: now + s.timing.leaseMs }\n  s.gate = {',
      },
    ],
    checks: [{ by: 'sim' }, { by: 'tests', files: ['test/scenarios/lease.test.ts'] }],
  },
  {
    id: 'jump-shortens-the-wait-of-a-start',
    breaks:
      'A backup that was given shorter leases and then stood still waits for a short lease only, inside its long promise.',
    edits: [
      {
        file: 'shared/protocol/step.ts',
        before: 'quarantineUntil: now + s.durable.leaseMs }\n  s.roundAfterAt = now\n',
        after: 'quarantineUntil: now + s.timing.leaseMs }\n  s.roundAfterAt = now\n',
      },
    ],
    checks: [
      { by: 'tests', files: ['test/scenarios/lease.test.ts'] },
      { by: 'sim', first: 1021690884394 },
    ],
  },
  {
    id: 'leases-of-two-lengths',
    breaks: 'The backup promises for a shorter time than the primary counts, as their profiles differ.',
    edits: [
      {
        file: 'shared/protocol/lease.ts',
        before: 'if (beat.leaseMs !== s.timing.leaseMs)',
        after: 'if (beat.leaseMs < 0)',
      },
    ],
    checks: [{ by: 'sim' }, { by: 'tests', files: ['test/scenarios/lease.test.ts'] }],
  },
  {
    id: 'acknowledging-during-a-candidacy',
    breaks: 'A candidate acknowledges heartbeats: the primary holds a lease while it is being replaced.',
    edits: [
      {
        file: 'shared/protocol/lease.ts',
        before: "if (s.backup.candidacy) return 'a candidacy of its own is open'",
        after: '',
      },
    ],
    checks: [{ by: 'tests', files: ['test/scenarios/lease.test.ts'] }, { by: 'interruptions' }, { by: 'sim' }],
  },
  {
    id: 'promise-not-kept',
    breaks: 'The backup stands before the time it promised to wait is over.',
    edits: [
      {
        file: 'shared/protocol/backup.ts',
        before: "if (now < backup.promiseUntil) return calm('it promised to wait')",
        after: '',
      },
      {
        file: 'shared/protocol/backup.ts',
        before: 'now < backup.heardAt + s.timing.leaseMs)',
        after: 'now < backup.heardAt + s.timing.silenceMs)',
      },
    ],
    checks: [{ by: 'tests', files: ['test/scenarios/lease.test.ts'] }, { by: 'interruptions' }, { by: 'sim' }],
  },
  {
    id: 'lease-counted-from-the-receipt',
    breaks: 'The primary counts the lease from when the answer came, not from when it had asked.',
    edits: [
      {
        file: 'shared/protocol/lease.ts',
        before: 'Math.max(s.lease.leaseUntil, sentAt + s.timing.leaseHeldMs)',
        after: 'Math.max(s.lease.leaseUntil, now + s.timing.leaseHeldMs)',
      },
    ],
    checks: [{ by: 'tests', files: ['test/scenarios/clocks.test.ts'] }, { by: 'interruptions' }, { by: 'sim' }],
  },
  {
    id: 'no-margin-for-drift',
    breaks: 'The primary counts the whole lease, as if both clocks ran alike.',
    edits: [
      {
        file: 'shared/protocol/timing.ts',
        before: 'leaseHeldMs: Math.floor((leaseMs * (1 - drift) - closeMs) / (1 + drift)),',
        after: 'leaseHeldMs: leaseMs,',
      },
      {
        file: 'shared/protocol/timing.ts',
        before: 't.leaseHeldMs * (1 + t.drift) + t.closeMs <= t.leaseMs * (1 - t.drift),',
        after: 't.leaseHeldMs <= t.leaseMs,',
      },
    ],
    checks: [{ by: 'tests', files: ['test/scenarios/takeover.test.ts'] }, { by: 'interruptions' }, { by: 'sim' }],
  },
  {
    id: 'refused-candidacy-repeated-each-lease',
    breaks: 'A backup that may not succeed asks W for the office each lease for as long as the primary is off.',
    edits: [
      {
        file: 'shared/protocol/proposer.ts',
        before: "if (round.change === 'takeover' && !round.best.value.successor)",
        after: 'if (round.change === null)',
      },
    ],
    checks: [{ by: 'tests', files: ['test/scenarios/office.test.ts'] }],
  },
  {
    id: 'slow-hand-over-binds-the-backup',
    breaks: 'A primary with a slow disk keeps its backup waiting for as long as the writes of a hand-over take.',
    edits: [
      {
        file: 'shared/protocol/lease.ts',
        before: 'return knownValue(s)?.successor === true && now - vacate.killedAt > s.timing.silenceMs',
        after: 'return false',
      },
    ],
    checks: [{ by: 'tests', files: ['test/scenarios/office.test.ts'] }],
  },
  {
    id: 'slow-disk-binds-between-two-writes',
    breaks:
      'A primary whose writes each hang binds its backup anew between one and the next, and serves hardly at all.',
    edits: [
      {
        file: 'shared/protocol/lease.ts',
        before: 'diskHangs(s, now) || s.persist.hung || handoverIsLate(s, now)',
        after: 'diskHangs(s, now) || handoverIsLate(s, now)',
      },
    ],
    checks: [{ by: 'tests', files: ['test/scenarios/office.test.ts'] }],
  },
  {
    id: 'nonce-not-compared',
    breaks: 'An answer to a heartbeat from before a restart or a pause extends the lease of today.',
    edits: [
      {
        file: 'shared/protocol/lease.ts',
        before: 'if (ack.nonce !== s.nonce || !isPrimary(s) || known === null) return',
        after: 'if (!isPrimary(s) || known === null) return',
      },
    ],
    checks: [{ by: 'tests', files: ['test/scenarios/lease.test.ts'] }, { by: 'interruptions' }, { by: 'sim' }],
  },
  {
    id: 'ack-of-any-store',
    breaks: 'The promise of a store that is not admitted extends the lease.',
    edits: [
      {
        file: 'shared/protocol/lease.ts',
        before: 'if (!ack.promise || ack.inc !== peerVoter(s) || !sameReign(ack, known)) return',
        after: 'if (!ack.promise || !sameReign(ack, known)) return',
      },
      {
        file: 'shared/protocol/lease.ts',
        before: "if (acc.voters[s.node] !== s.durable.inc) return 'its store is not the admitted one'",
        after: '',
      },
      {
        file: 'shared/protocol/lease.ts',
        before: "if (acc === null) return 'its store is new and not admitted yet'",
        after: "if (acc === null) return ''",
      },
      {
        file: 'shared/protocol/lease.ts',
        before: '    gen: known?.gen ?? 0,\n    epoch: known?.epoch ?? 0,\n    version: known?.version ?? 0,\n    inc:',
        after:
          '    gen: known?.gen ?? beat.gen,\n    epoch: known?.epoch ?? beat.epoch,\n    version: known?.version ?? 0,\n    inc:',
      },
    ],
    checks: [{ by: 'tests', files: ['test/scenarios/lease.test.ts'] }, { by: 'interruptions' }, { by: 'sim' }],
  },
  {
    id: 'lease-of-another-reign',
    breaks: 'A promise given in an earlier epoch or gen extends the lease of this one.',
    edits: [
      {
        file: 'shared/protocol/lease.ts',
        before: 'if (!ack.promise || ack.inc !== peerVoter(s) || !sameReign(ack, known)) return',
        after: 'if (!ack.promise || ack.inc !== peerVoter(s)) return',
      },
      {
        file: 'shared/protocol/lease.ts',
        before: 'const current = acc === null || (sameReign(beat, acc) && acc.primary === s.peer)',
        after: 'const current = acc === null || acc.primary === s.peer',
      },
    ],
    checks: [{ by: 'tests', files: ['test/scenarios/lease.test.ts'] }, { by: 'sim' }],
  },
  {
    id: 'log-lost-its-tail-unseen',
    breaks: 'A backup whose disk lost records that it had acknowledged stands for primary.',
    edits: [
      {
        file: 'shared/protocol/facts.ts',
        before:
          'export const logIsWhole = (s: HostState): boolean => notBefore(s.database.view.end, s.durable.maxFlushed)',
        after: 'export const logIsWhole = (s: HostState): boolean => s.database.view.end.lsn >= 0',
      },
    ],
    checks: [{ by: 'tests', files: ['test/scenarios/lease.test.ts'] }, { by: 'interruptions' }, { by: 'sim' }],
  },
  {
    id: 'abdication-missing',
    breaks:
      'A primary that hears nobody goes on sending heartbeats, and so keeps the backup from taking over for ever.',
    edits: [
      {
        file: 'shared/protocol/lease.ts',
        before: 'if (now - since < s.timing.abdicateAfterMs) return',
        after: 'if (now - since < s.timing.abdicateAfterMs * 1e6) return',
      },
    ],
    checks: [{ by: 'tests', files: ['test/scenarios/lease.test.ts'] }, { by: 'interruptions' }, { by: 'sim' }],
  },
  {
    id: 'clock-jump-forgets-the-boot-alone',
    breaks: 'After a pause only confirmedBoot is forgotten: lease, nonce and rounds from before it live on.',
    edits: [
      {
        file: 'shared/protocol/step.ts',
        before: "  if (s.round !== null) endRound(turn, 'the clocks jumped')\n  s.nonce = nonce\n",
        after: '  if (nonce < 0) s.nonce = nonce\n',
      },
      {
        file: 'shared/protocol/step.ts',
        before: '    leaseUntil: 0,\n    beats: [],\n    ack: null,\n    ackAt: 0,\n',
        after: '',
      },
      {
        file: 'shared/protocol/step.ts',
        before: '    ackSentAt: 0,\n    promisedAt: 0,\n    primaryAt: now,\n    progressAt: now,\n  }\n  // As',
        after: '  }\n  // As',
      },
    ],
    checks: [{ by: 'tests', files: ['test/scenarios/clocks.test.ts'] }, { by: 'interruptions' }, { by: 'sim' }],
  },
  {
    id: 'clock-jump-ignored',
    breaks: 'A host that was suspended goes on as if nothing had been.',
    edits: [
      {
        file: 'shared/protocol/step.ts',
        before: '      onClockJump(turn, event.nonce)\n',
        after: '',
      },
      {
        file: 'shared/protocol/step.ts',
        before: 'function onClockJump(turn: Turn, nonce: number): void {',
        after: 'export function onClockJump(turn: Turn, nonce: number): void {',
      },
    ],
    checks: [{ by: 'tests', files: ['test/scenarios/clocks.test.ts'] }, { by: 'interruptions' }, { by: 'sim' }],
  },
  {
    id: 'quarantine-not-after-a-jump',
    breaks: 'A backup that was suspended stands at once, as if its promise had run out meanwhile.',
    edits: [
      {
        file: 'shared/protocol/step.ts',
        before: '  s.backup = { ...s.backup, quarantineUntil: now + s.durable.leaseMs }\n  s.roundAfterAt = now\n',
        after: '  s.roundAfterAt = now\n',
      },
    ],
    checks: [{ by: 'tests', files: ['test/scenarios/clocks.test.ts'] }, { by: 'interruptions' }, { by: 'sim' }],
  },
  {
    id: 'lease-outlives-the-office',
    breaks: 'A host that is primary again counts the lease of its earlier time in office.',
    edits: [
      {
        file: 'shared/protocol/step.ts',
        before: '      abdicated: false,\n      leaseUntil: 0,\n      promisedAt: 0,\n',
        after: '      abdicated: false,\n      promisedAt: 0,\n',
      },
    ],
    checks: [{ by: 'tests', files: ['test/scenarios/lease.test.ts'] }, { by: 'sim' }],
  },
  {
    id: 'never-pinned',
    breaks: 'With the witness away the pair stays as it is, and the loss of the backup then stops the primary.',
    edits: [
      {
        file: 'shared/protocol/duties.ts',
        before: "if (witnessIsAway(turn)) return 'witness away'",
        after: '',
      },
    ],
    checks: [{ by: 'tests', files: ['test/scenarios/lease.test.ts'] }, { by: 'interruptions' }, { by: 'sim' }],
  },
]
