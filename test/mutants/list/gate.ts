import type { Mutant } from '../list.ts'

const kernelTests = ['test/integration/gate-lateness.test.ts', 'test/integration/gate.test.ts']

/** The permission to serve: what the core asks for, and how the kernel is told. */
export const gate: readonly Mutant[] = [
  {
    id: 'gate-shut-by-agent-code-only',
    breaks: 'Grants do not end with the lease: a stopped or hanging agent leaves its gate open.',
    edits: [
      {
        file: 'shared/protocol/gatekeeper.ts',
        before: 'const until = byLease ? s.lease.leaseUntil : now + s.timing.pinnedGrantMs',
        after: 'const until = now + s.timing.pinnedGrantMs',
      },
    ],
    checks: [{ by: 'tests', files: ['test/scenarios/replication.test.ts'] }, { by: 'interruptions' }, { by: 'sim' }],
  },
  {
    id: 'grant-not-cut-before-a-grow',
    breaks: 'A grow is sent while a grant of the pinned time outlasts the lease.',
    edits: [
      {
        file: 'shared/protocol/primary-conditions.ts',
        before: "return s.gate.grantUntil > s.lease.leaseUntil ? 'the gate is open for longer than the lease' : null",
        after: 'return null',
      },
    ],
    checks: [{ by: 'tests', files: ['test/scenarios/clocks.test.ts'] }, { by: 'interruptions' }, { by: 'sim' }],
  },
  {
    id: 'grants-not-added-up',
    breaks:
      'A cut of the grant is believed before the kernel has answered: the older, longer one may still be in force.',
    edits: [
      {
        file: 'shared/protocol/effects.ts',
        before: 'grantUntil: Math.max(s.gate.grantUntil, until),',
        after: 'grantUntil: until,',
      },
    ],
    checks: [{ by: 'tests', files: ['test/scenarios/clocks.test.ts'] }, { by: 'interruptions' }, { by: 'sim' }],
  },
  {
    id: 'gate-replies-not-matched',
    breaks: 'What the kernel says to an earlier request is taken for the answer to the newest one.',
    edits: [
      { file: 'shared/protocol/gatekeeper.ts', before: 'if (seq !== s.gate.seq) return', after: 'if (seq < 0) return' },
    ],
    checks: [{ by: 'tests', files: ['test/scenarios/clocks.test.ts'] }, { by: 'interruptions' }, { by: 'sim' }],
  },
  {
    id: 'pinned-grant-during-a-grow',
    breaks: 'While a grow is under way the gate is renewed for the pinned time.',
    edits: [
      {
        file: 'shared/protocol/gatekeeper.ts',
        before: "const byLease = right === 'lease' || (growing && s.lease.leaseUntil > now + s.timing.silenceMs)",
        after: "const byLease = right === 'lease' || (growing && s.lease.leaseUntil > now + s.timing.leaseMs * 9)",
      },
      {
        file: 'shared/protocol/primary-conditions.ts',
        before: "return s.gate.grantUntil > s.lease.leaseUntil ? 'the gate is open for longer than the lease' : null",
        after: 'return null',
      },
    ],
    checks: [{ by: 'tests', files: ['test/scenarios/replication.test.ts'] }, { by: 'interruptions' }, { by: 'sim' }],
  },
  {
    id: 'open-grant-extended-on-restart',
    breaks: 'A new agent renews the grant it found before names, barrier and lease are proven anew.',
    edits: [
      {
        file: 'shared/protocol/gatekeeper.ts',
        before: '      isPrimary(s)\n    )\n      return\n',
        after: '      isPrimary(s)\n    ) {\n      openGate(turn, now + s.timing.pinnedGrantMs)\n      return\n    }\n',
      },
    ],
    checks: [{ by: 'tests', files: ['test/scenarios/lease.test.ts'] }, { by: 'interruptions' }, { by: 'sim' }],
  },
  {
    id: 'no-margin-for-a-late-grant',
    breaks: 'The life of the guard is not taken off the grant: applied late it outlasts the lease.',
    edits: [
      {
        file: 'shared/protocol/grants.ts',
        before: 'const longest = Math.floor(times.untilMs - times.armedMs - GRANT_OVERHEAD_MS)',
        after: 'const longest = Math.floor(times.untilMs - times.armedMs)',
      },
    ],
    checks: [{ by: 'tests', files: ['test/scenarios/takeover.test.ts'] }, { by: 'interruptions' }, { by: 'sim' }],
  },
  {
    id: 'opened-without-arming',
    breaks: 'A grant does not depend on its guard: a transaction of a stopped agent reopens the gate when it goes on.',
    edits: [
      {
        file: 'node-agent/gate/kernel-gate.ts',
        before: "    batch.deleteElement('guard', this.#set('inet', 'guard'), guard)\n",
        after: "    if (guard.length === 0) batch.deleteElement('guard', this.#set('inet', 'guard'), guard)\n",
      },
    ],
    checks: [{ by: 'lab', files: kernelTests }],
  },
  {
    id: 'plain-add-as-renewal',
    breaks: 'A renewal is a plain add of the open element: it needs no guard, no token and no grant before it.',
    edits: [
      {
        file: 'node-agent/gate/nft.ts',
        before: "return this.#element(step, 'newElement', NLM_F_CREATE | NLM_F_EXCL, set, element)",
        after: "return this.#element(step, 'newElement', NLM_F_CREATE, set, element)",
      },
      { file: 'node-agent/gate/nft.ts', before: '  NLM_F_EXCL,\n', after: '' },
      {
        file: 'node-agent/gate/kernel-gate.ts',
        before:
          "    batch.deleteElement('guard', this.#set('inet', 'guard'), guard)\n    batch.deleteElement('token', this.#set('inet', 'writer'), this.#token)\n    batch.createElement('token', this.#set('inet', 'writer'), { key: this.#token })\n",
        after: "    if (guard.length === 0) batch.deleteElement('guard', this.#set('inet', 'guard'), guard)\n",
      },
      {
        file: 'node-agent/gate/kernel-gate.ts',
        before: "      batch.flushSet('grant', this.#set(family, 'open'))\n",
        after: '',
      },
    ],
    checks: [{ by: 'lab', files: kernelTests }],
  },
  {
    id: 'netlink-replies-not-counted',
    breaks: 'A transaction of which nobody heard is taken for applied.',
    edits: [
      {
        file: 'node-agent/gate/nft.ts',
        before: 'if (errors.length === 0 && answer.acks >= this.#steps.size) return { ok: true }',
        after: 'if (errors.length === 0) return { ok: true }',
      },
    ],
    checks: [{ by: 'tests', files: ['test/unit/nft.test.ts'] }],
  },
  {
    id: 'grant-measured-from-before-arming',
    breaks: 'The time left is read before the guard is armed: what passed in between is granted too.',
    edits: [
      {
        file: 'node-agent/gate/kernel-gate.ts',
        before: '    const armedMs = bootMs()\n',
        after: '    const armedMs = nowMs\n',
      },
    ],
    checks: [{ by: 'lab', files: kernelTests }],
  },
  {
    id: 'freeze-leaves-pending-grants-alive',
    breaks: 'A freeze does not end the guard and the token: a transaction that was under way opens the gate again.',
    edits: [
      {
        file: 'node-agent/gate/kernel-gate.ts',
        before:
          "    const batch = this.#nft.batch()\n    batch.flushSet('end pending transactions', this.#set('inet', 'guard'))\n    for (const { family } of this.#tables) batch.flushSet('end the grant', this.#set(family, 'open'))\n",
        after:
          "    const batch = this.#nft.batch()\n    for (const { family } of this.#tables) batch.flushSet('end the grant', this.#set(family, 'open'))\n",
      },
      {
        file: 'node-agent/gate/kernel-gate.ts',
        before: "    else batch.flushSet('frozen', this.#set('inet', 'closed'))\n    this.#newToken(batch)\n",
        after: "    else batch.flushSet('frozen', this.#set('inet', 'closed'))\n",
      },
    ],
    checks: [{ by: 'lab', files: kernelTests }],
  },
  {
    id: 'a-replaced-writer-may-open',
    breaks: 'An agent that was replaced, and wakes up with a grant in its hands, opens the gate.',
    edits: [
      {
        file: 'node-agent/gate/kernel-gate.ts',
        before:
          "    batch.deleteElement('token', this.#set('inet', 'writer'), this.#token)\n    batch.createElement('token', this.#set('inet', 'writer'), { key: this.#token })\n",
        after: '',
      },
      {
        file: 'node-agent/gate/kernel-gate.ts',
        before:
          "    if (persistent) for (const table of this.#tables) claimTable(batch, table)\n    batch.flushSet('end pending transactions', this.#set('inet', 'guard'))\n",
        after: '    if (persistent) for (const table of this.#tables) claimTable(batch, table)\n',
      },
    ],
    checks: [{ by: 'lab', files: kernelTests }],
  },
  {
    id: 'wall-clock-for-the-lease',
    breaks: 'Leases are counted on a clock that an administrator or NTP can set.',
    edits: [
      {
        file: 'node-agent/kernel/clock.ts',
        before: '  return clockMs(CLOCK_BOOTTIME)\n',
        after: '  return clockMs(CLOCK_BOOTTIME * 0)\n',
      },
    ],
    checks: [{ by: 'tests', files: ['test/unit/kernel.test.ts'] }],
  },
]
