import type { Mutant } from '../list.ts'

const executor = { by: 'tests', files: ['test/unit/execute.test.ts'] } as const
const postgres = { by: 'lab', files: ['test/integration/postgres.test.ts'] } as const

/** The agent around the core: the order of effects, the loop, and what PostgreSQL is told. */
export const drivers: readonly Mutant[] = [
  {
    id: 'executor-does-not-wait-for-the-disk',
    breaks: 'Effects behind a durable write start while it is still under way.',
    edits: [
      {
        file: 'node-agent/execute.ts',
        before: 'if (this.#waiting && !bypasses(effect)) this.#enqueue(effect)',
        after: 'if (this.#waiting && this.#stopped) this.#enqueue(effect)',
      },
    ],
    checks: [executor],
  },
  {
    id: 'executor-lets-promises-overtake',
    breaks: 'A promise to an acceptor round overtakes the durable write it stands for.',
    edits: [
      {
        file: 'node-agent/execute.ts',
        before: "new Set<Message['kind']>(['heartbeat', 'ack', 'read'])",
        after: "new Set<Message['kind']>(['heartbeat', 'ack', 'read', 'promise', 'accepted'])",
      },
    ],
    checks: [executor],
  },
  {
    id: 'executor-opens-a-gate-shut-meanwhile',
    breaks: 'An opening that waited for the disk is applied after the gate was shut.',
    edits: [{ file: 'node-agent/execute.ts', before: 'if (effect.seq < this.#gateSeq) return\n', after: '' }],
    checks: [executor],
  },
  {
    id: 'executor-starts-a-database-killed-meanwhile',
    breaks: 'A start of the database that waited for the disk is carried out after the database was killed.',
    edits: [{ file: 'node-agent/execute.ts', before: 'if (id < this.#databaseId) return\n', after: '' }],
    checks: [executor],
  },
  {
    id: 'failed-write-survived',
    breaks: 'An agent whose durable write failed goes on promising.',
    edits: [
      {
        file: 'node-agent/execute.ts',
        before: '        return this.#end(`the durable state could not be written: ${sentenceOf(error)}`)\n',
        after: '        this.#options.note(sentenceOf(error))\n',
      },
    ],
    checks: [executor],
  },
  {
    id: 'suspend-unnoticed',
    breaks: 'The loop does not compare its clocks: a message that waited through a suspend is believed.',
    edits: [
      { file: 'node-agent/loop.ts', before: 'if (suspendedMs > suspendSlackMs) {', after: 'if (suspendedMs < -1) {' },
    ],
    checks: [{ by: 'tests', files: ['test/unit/loop.test.ts'] }],
  },
  {
    id: 'no-fork-check-before-following',
    breaks: 'An old primary with a diverged log starts as a standby and makes the new one acknowledge without a copy.',
    edits: [
      {
        file: 'shared/protocol/rejoin.ts',
        before: '  if (end.lsn <= ancestor.endsAt) {\n',
        after: '  if (end.lsn >= 0) {\n',
      },
    ],
    checks: [postgres],
  },
  {
    id: 'no-checkpoint-before-a-rewind',
    breaks: 'pg_rewind takes a freshly promoted source for its old self and does nothing.',
    edits: [
      {
        file: 'node-agent/postgres/rejoin.ts',
        before: '    await sql`checkpoint`\n',
        after: '',
      },
    ],
    checks: [postgres],
  },
  {
    id: 'diverged-log-thrown-away',
    breaks: 'The only copy of commits that were given up is rewound away without a trace.',
    edits: [
      {
        file: 'node-agent/postgres/rejoin.ts',
        before: 'const evidence = tail === null ? null : await keepEvidence(spec, tail)',
        after: 'const evidence = null as Evidence | null',
      },
    ],
    checks: [postgres],
  },
  {
    id: 'sync-state-taken-for-a-proof',
    breaks: 'The shown sync_state is believed although the checkpointer has not processed the names.',
    edits: [
      {
        file: 'node-agent/postgres/promote.ts',
        before:
          "  await sql`checkpoint`\n  await sql`set synchronous_commit = on`\n  await sql`select pg_logical_emit_message(true, 'understudy', 'barrier')`\n",
        after: '',
      },
    ],
    checks: [postgres],
  },
  {
    id: 'orphans-left-alive',
    breaks: 'A kill takes the postmaster alone: orphaned backends go on and answer.',
    edits: [
      {
        file: 'node-agent/postgres/processes.ts',
        before: '  const until = performance.now() + killLimitMs\n  const events',
        after:
          '  const until = performance.now() + killLimitMs\n  const postmaster = await findPostmaster(spec)\n  if (postmaster !== null) killOne(postmaster)\n  if (until > 0) return true\n  const events',
      },
    ],
    checks: [{ by: 'tests', files: ['test/unit/processes.test.ts'] }],
  },
]
