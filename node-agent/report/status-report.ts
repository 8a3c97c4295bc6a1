import { showLsn } from '../../shared/lsn.ts'
import { peerVoter, witnessVoter } from '../../shared/protocol/facts.ts'
import type { Protection, Role } from '../../shared/protocol/status.ts'
import type { DataNode, Reach } from '../../shared/protocol/types.ts'
import type { Agent } from '../agent.ts'
import { type ReportedTree, reportedTrees } from '../files/core-side.ts'
import type { CertificateEnd } from '../pair/certificate-ends.ts'
import type { LinkPath, RefusedPackets, ServiceState, VipState } from '../ports.ts'
import { softwareVersion } from '../version.ts'
import type { WorkerState } from '../workers/supervisor.ts'
import { obstacles } from './check-report.ts'

/** What `status --json` prints; the fields are part of the CLI's contract, new ones may be added. */
export interface StatusReport {
  pair: string
  node: DataNode
  role: Role
  gen: number
  /** Above `gen`: forced on the other host, and what was decided in it is not known here. */
  genHeard: number
  epoch: number
  /** The register's version, not the software's. */
  version: number
  serving: boolean
  primary: DataNode | null
  successor: boolean
  protection: Protection
  /** ISO 8601, UTC. */
  since: string
  why: string
  sealed: boolean
  maintenance: boolean
  /** ISO 8601 of when maintenance ends, or null. */
  maintenanceUntil: string | null
  /** Why no automatic takeover would succeed now, as this host sees it; [] means that one would. */
  blocking: string[]
  lease: { held: boolean; leftMs: number }
  gate: { state: string; leftMs: number }
  peer: {
    node: DataNode
    heardAgoMs: number | null
    admitted: boolean
    /** The register has it as a voter, whether it is heard or not. */
    isMember: boolean
    why: string
    paths: LinkPath[]
    /** Two keys of the pair are known here, and the hosts talk by the new one. */
    usesNewestKey: boolean
    refused: RefusedPackets
  }
  /** null: the pair has none. */
  witness: {
    url: string
    reach: Reach
    /** Of the one that is wanted here. */
    answeredAgoMs: number | null
    voteP99Ms: number | null
    why: string
    /** The register has the one that is wanted here as its third voter. */
    isMember: boolean
    /** Its incarnation will never vote again: the pair has to admit it anew. */
    isVoid: boolean
    /** null: none is configured. */
    alternate: { url: string; answeredAgoMs: number | null; isMember: boolean } | null
  } | null
  replication: {
    process: string
    timeline: number
    lsn: string
    streaming: boolean
    lagBytes: number | null
    operation: string | null
    lastError: string
    /** Why the database is left as it is, or ''. */
    standing: string
  }
  vips: VipState[]
  uplink: { up: boolean; why: string }
  disks: { path: string; freeMb: number; totalMb: number }[]
  services: ServiceState[]
  workers: WorkerState[]
  /** The directory trees kept on both hosts, as the files worker last reported them. */
  sync: ReportedTree[]
  /** Of this host's database: ISO 8601 of when each ends. */
  certificates: { of: CertificateEnd['of']; ends: string }[]
  alarms: string[]
  agent: { pid: number; version: string; startedAt: string; profile: string }
}

export function statusReport(agent: Agent): StatusReport {
  const { config, ports, state } = agent
  const now = ports.clock.bootMs()
  const status = agent.status()
  const { heardAgoMs, admitted, why } = status.peer
  return {
    pair: config.pair,
    node: status.node,
    role: status.role,
    gen: status.gen,
    genHeard: status.genHeard,
    epoch: status.epoch,
    version: status.version,
    serving: status.serving,
    primary: status.primary,
    successor: status.successor,
    protection: status.protection,
    since: new Date(agent.verdict?.sinceMs ?? agent.startedMs).toISOString(),
    why: status.why,
    sealed: status.sealed,
    maintenance: status.maintenance,
    maintenanceUntil: status.maintenance
      ? new Date(Date.now() + state.duty.maintenanceUntil - now).toISOString()
      : null,
    blocking: obstacles(agent, now),
    lease: { held: status.lease.held, leftMs: Math.round(status.lease.leftMs) },
    gate: { state: state.gate.report.state, leftMs: Math.max(0, Math.round(state.gate.report.expiresUntil - now)) },
    peer: {
      node: state.peer,
      heardAgoMs: heardAgoMs === null ? null : Math.round(heardAgoMs),
      admitted,
      isMember: peerVoter(state) !== null,
      why: ports.peer.trouble() || why,
      paths: ports.peer.paths(),
      usesNewestKey: ports.peer.usesNewestKey(),
      refused: ports.peer.refused(),
    },
    witness: witnessOf(agent),
    replication: {
      process: status.database.process,
      timeline: status.database.timeline,
      lsn: showLsn(status.database.lsn),
      streaming: status.role === 'primary' ? state.lease.ack?.streaming === true : state.database.view.streaming,
      lagBytes: status.database.lagBytes,
      operation: status.database.operation,
      lastError: status.database.lastError,
      standing: state.duty.said.database ?? '',
    },
    vips: ports.vip.state(),
    uplink: agent.uplink,
    disks: ports.disk.state().volumes,
    services: ports.services.state(),
    workers: agent.workers.state(),
    sync: reportedTrees(agent.workers),
    certificates: agent.certificates.map(({ of, endsMs }) => ({ of, ends: new Date(endsMs).toISOString() })),
    alarms: [...agent.alarms.values()],
    agent: {
      pid: process.pid,
      version: softwareVersion,
      startedAt: new Date(agent.startedMs).toISOString(),
      profile: config.profile,
    },
  }
}

function witnessOf(agent: Agent): StatusReport['witness'] {
  const { config, ports, state } = agent
  if (config.witness === null || ports.witness === null) return null
  const { url, p99Ms, why, isVoid } = ports.witness.health()
  const { wanted } = state.witness
  const reach = agent.status().witness
  const voter = witnessVoter(state)
  const { alternate } = config.witness
  return {
    url,
    reach,
    answeredAgoMs: wanted === null ? null : agoOf(ports.witness.answeredAgoMs(wanted)),
    voteP99Ms: p99Ms,
    why: reach === 'yes' ? '' : why,
    isMember: voter !== null && voter === wanted,
    isVoid: reach !== 'yes' && isVoid,
    alternate:
      alternate === null
        ? null
        : {
            url: alternate.url,
            answeredAgoMs: agoOf(ports.witness.answeredAgoMs(alternate.inc)),
            isMember: voter === alternate.inc,
          },
  }
}

const agoOf = (ms: number | null): number | null => (ms === null ? null : Math.round(ms))
