import type { StatusReport } from './status-report.ts'

/** Prometheus text format 0.0.4: one family after the other, each with its help and type. */
interface Sample {
  labels?: Record<string, string>
  value: number | null
}
interface Family {
  name: string
  help: string
  type: 'gauge' | 'counter'
  samples: Sample[]
}

export interface Counters {
  gate: Record<string, number>
  decisionsDropped: number
  cancelledWaits: number
}

export function metricsText(status: StatusReport, counters: Counters): string {
  const base = { pair: status.pair, node: status.node }
  return families(status, counters)
    .filter(family => family.samples.some(sample => sample.value !== null))
    .map(family => show(family, base))
    .join('')
}

function families(status: StatusReport, counters: Counters): Family[] {
  const yes = (value: boolean): number => (value ? 1 : 0)
  const gauge = (name: string, help: string, value: number | boolean | null): Family => ({
    name,
    help,
    type: 'gauge',
    samples: [{ value: typeof value === 'boolean' ? yes(value) : value }],
  })
  const states = <T extends string>(name: string, help: string, all: readonly T[], now: T): Family => ({
    name,
    help,
    type: 'gauge',
    samples: all.map(state => ({ labels: { state }, value: yes(state === now) })),
  })
  const of = <T>(
    items: readonly T[],
    labels: (item: T) => Record<string, string>,
    value: (item: T) => number | null,
  ): Sample[] => items.map(item => ({ labels: labels(item), value: value(item) }))
  const path = (one: { local: string; peer: string }): Record<string, string> => ({ local: one.local, peer: one.peer })
  const { peer, witness, replication } = status
  return [
    gauge('understudy_serving', 'Whether this host serves clients.', status.serving),
    states(
      'understudy_protection',
      'The verdict on the pair as this host sees it.',
      ['protected', 'serving but unprotected', 'not serving'],
      status.protection,
    ),
    states(
      'understudy_role',
      'The role by the register.',
      ['primary', 'backup', 'unsettled', 'not a member'],
      status.role,
    ),
    gauge('understudy_epoch', 'Changes of primary since the pair was made.', status.epoch),
    gauge('understudy_generation', 'Forced takeovers, plus one.', status.gen),
    gauge('understudy_register_version', 'Changes of the register.', status.version),
    gauge('understudy_since_timestamp_seconds', 'Since when the verdict holds.', Date.parse(status.since) / 1000),
    gauge('understudy_lease_left_seconds', 'What is left of the lease.', status.lease.leftMs / 1000),
    gauge('understudy_gate_open', 'Whether the kernel lets clients through.', status.gate.state === 'open'),
    gauge('understudy_peer_heard_seconds', 'Age of the newest word of the other host.', seconds(peer.heardAgoMs)),
    {
      name: 'understudy_path_heard_seconds',
      help: 'The same for each path.',
      type: 'gauge',
      samples: of(peer.paths, path, one => seconds(one.heardMs)),
    },
    {
      name: 'understudy_path_round_trip_seconds',
      help: 'Smoothed round trip.',
      type: 'gauge',
      samples: of(peer.paths, path, one => seconds(one.roundTripMs)),
    },
    {
      name: 'understudy_path_loss_ratio',
      help: 'Packets lost lately.',
      type: 'gauge',
      samples: of(peer.paths, path, one => (one.lossPercent === null ? null : one.lossPercent / 100)),
    },
    {
      name: 'understudy_peer_refused_packets_total',
      help: 'Packets on the peer link that were thrown away, by reason.',
      type: 'counter',
      samples: Object.entries(peer.refused).map(([reason, value]) => ({ labels: { reason }, value })),
    },
    gauge(
      'understudy_witness_reached',
      'Whether the witness answers.',
      witness === null ? null : witness.reach === 'yes',
    ),
    gauge('understudy_witness_vote_p99_seconds', 'p99 of a vote.', seconds(witness?.voteP99Ms ?? null)),
    gauge(
      'understudy_replication_lag_bytes',
      'Log that the backup has not flushed; only on the primary.',
      replication.lagBytes,
    ),
    gauge('understudy_replication_streaming', 'Whether the standby streams.', replication.streaming),
    {
      name: 'understudy_vip_present',
      help: 'Whether the address is on its interface here.',
      type: 'gauge',
      samples: of(
        status.vips,
        vip => ({ address: vip.address, interface: vip.interface }),
        vip => yes(vip.present),
      ),
    },
    {
      name: 'understudy_service_running',
      help: 'Whether a protected service runs here.',
      type: 'gauge',
      samples: of(
        status.services,
        one => ({ service: one.name }),
        one => yes(one.state === 'running'),
      ),
    },
    {
      name: 'understudy_service_restarts_total',
      help: 'Restarts of a protected service.',
      type: 'counter',
      samples: of(
        status.services,
        one => ({ service: one.name }),
        one => one.restarts,
      ),
    },
    {
      name: 'understudy_worker_running',
      help: 'Whether a worker of the agent runs.',
      type: 'gauge',
      samples: of(
        status.workers,
        one => ({ worker: one.name }),
        one => yes(one.state === 'running'),
      ),
    },
    {
      name: 'understudy_worker_restarts_total',
      help: 'Deaths and kills of a worker.',
      type: 'counter',
      samples: of(
        status.workers,
        one => ({ worker: one.name }),
        one => one.restarts,
      ),
    },
    {
      name: 'understudy_sync_behind_seconds',
      help: 'How old the oldest change of a tree is that the backup has not yet.',
      type: 'gauge',
      samples: of(
        status.sync.filter(one => one.role === 'primary'),
        one => ({ tree: one.tree }),
        one => one.behindS ?? 0,
      ),
    },
    {
      name: 'understudy_sync_behind_changes',
      help: 'Changes of a tree that the backup has not yet.',
      type: 'gauge',
      samples: of(
        status.sync.filter(one => one.role === 'primary'),
        one => ({ tree: one.tree }),
        one => one.behindChanges ?? 0,
      ),
    },
    {
      name: 'understudy_sync_in_sync',
      help: 'Whether everything of a tree is durable on the backup and was compared.',
      type: 'gauge',
      samples: of(
        status.sync.filter(one => one.role === 'primary'),
        one => ({ tree: one.tree }),
        one => yes(one.state === 'in sync'),
      ),
    },
    {
      name: 'understudy_disk_free_bytes',
      help: 'Free space of a volume that the pair needs.',
      type: 'gauge',
      samples: of(
        status.disks,
        one => ({ path: one.path }),
        one => one.freeMb * 2 ** 20,
      ),
    },
    {
      name: 'understudy_certificate_end_timestamp_seconds',
      help: 'When a certificate of this host’s database ends.',
      type: 'gauge',
      samples: of(
        status.certificates,
        one => ({ certificate: one.of }),
        one => Date.parse(one.ends) / 1000,
      ),
    },
    gauge('understudy_alarms', 'Standing alarms.', status.alarms.length),
    {
      name: 'understudy_gate_packets_total',
      help: 'Packets the gate stopped.',
      type: 'counter',
      samples: Object.entries(counters.gate).map(([verdict, value]) => ({ labels: { verdict }, value })),
    },
    {
      name: 'understudy_decisions_dropped_total',
      help: 'Decisions that did not reach the disk.',
      type: 'counter',
      samples: [{ value: counters.decisionsDropped }],
    },
    {
      name: 'understudy_cancelled_waits_total',
      help: 'Commits that stopped waiting for the backup: not acknowledged by it.',
      type: 'counter',
      samples: [{ value: counters.cancelledWaits }],
    },
  ]
}

function show({ name, help, type, samples }: Family, base: Record<string, string>): string {
  const lines = samples
    .filter(sample => sample.value !== null)
    .map(({ labels, value }) => `${name}{${showLabels({ ...base, ...labels })}} ${value}\n`)
  return `# HELP ${name} ${help}\n# TYPE ${name} ${name.endsWith('_total') ? 'counter' : type}\n${lines.join('')}`
}

const showLabels = (labels: Record<string, string>): string =>
  Object.entries(labels)
    .map(([key, value]) => `${key}="${value.replace(/\\/g, '\\\\').replace(/"/g, '\\"').replace(/\n/g, '\\n')}"`)
    .join(',')

const seconds = (ms: number | null): number | null => (ms === null ? null : ms / 1000)
