import { z } from 'zod'
import type { Command } from '../../shared/contract/documents.ts'
import type { HostReport } from '../../shared/contract/report.ts'
import type { CheckReport } from '../report/check-report.ts'
import type { StatusReport } from '../report/status-report.ts'
import { ask } from '../socket/client.ts'
import { VerbError } from '../socket/messages.ts'
import type { HostPort, RunOutcome } from './session.ts'

/**
 * The core as the control plane's link sees it: through the same socket as the command line, so that whatever the portal
 * can do to a pair, an operator on the host can do too, and nothing more.
 */
export interface CoreOverSocket extends Omit<HostPort, 'apply'> {
  status: () => Promise<StatusReport | null>
  read: (verb: string) => Promise<unknown>
}

export function coreOverSocket(path: string, agent: HostReport['agent']): CoreOverSocket {
  let checked: { standing: string; atMs: number; check: CheckReport | null } | null = null
  const read = async <T>(verb: string): Promise<T | null> => {
    try {
      return (await ask({ path, verb, silenceMs: readLimitMs })) as T
    } catch {
      return null
    }
  }
  return {
    present: async () => {
      const status = await read<StatusReport>('status')
      return status === null ? null : { gen: status.gen, epoch: status.epoch, node: status.node }
    },
    state: async () => {
      const status = await read<StatusReport>('status')
      if (status === null) return { pair: null, agent }
      // It asks the network and the database: not for each report, but anew with each change of standing.
      const { role, epoch, protection, serving, maintenance, replication } = status
      const { process, streaming, operation } = replication
      const standing = [role, epoch, protection, serving, maintenance, process, streaming, operation].join()
      // A pair that is protected and can't take over knows something by hearsay that may be over already.
      const outlived = protection === 'protected' && checked?.check?.takeover === false
      const freshMs = outlived ? checkAgainMs : checkFreshMs
      if (checked === null || checked.standing !== standing || performance.now() - checked.atMs > freshMs)
        checked = { standing, atMs: performance.now(), check: await read<CheckReport>('check') }
      const { check } = checked
      return {
        pair: pairOf(status, check),
        agent: { version: status.agent.version, startedAt: status.agent.startedAt },
      }
    },
    // What the core tells meanwhile are its own decisions: told back to it they would be new ones, without end.
    run: async command => {
      if (command.verb !== 'pairLeave') return run(path, command)
      const status = await read<StatusReport>('status')
      return command.args.otherIsLost === true ? goOnAlone(path, status) : leave(path, status)
    },
    status: () => read<StatusReport>('status'),
    read: verb => read<unknown>(verb),
  }
}
const checkFreshMs = 20_000
const checkAgainMs = 900

const readLimitMs = 5_000
/** A switchover says something meanwhile; a forced takeover may replay for long. */
const actLimitMs = 120_000

async function run(path: string, command: Command): Promise<RunOutcome> {
  const call = callOf(command)
  if (call === null)
    return { phase: 'refused', message: `this version of the agent knows no ${command.verb} from afar` }
  return act({ path, ...call })
}

/** A verb of the core's own. */
export async function act(call: { path: string; verb: string; args: Record<string, unknown> }): Promise<RunOutcome> {
  try {
    const answer = await ask({ ...call, silenceMs: actLimitMs })
    return { phase: 'done', message: whyOf(answer) }
  } catch (error) {
    const message = error instanceof Error ? error.message : String(error)
    const refused = error instanceof VerbError && (error.code === 'refused' || error.code === 'usage')
    return { phase: refused ? 'refused' : 'failed', message }
  }
}

/** Both hosts are asked to leave, the backup first: the one that is left over has nothing more to do than to go on. */
async function leave(path: string, status: StatusReport | null): Promise<RunOutcome> {
  if (status === null) return { phase: 'refused', message: 'the core does not answer' }
  if (status.role !== 'primary') return act({ path, verb: 'depart', args: {} })
  return status.peer.isMember
    ? { phase: 'refused', message: `${status.peer.node} is a member still and has to leave first` }
    : { phase: 'done', message: `${status.node} goes on alone, unprotected` }
}

/**
 * The other host is gone for good, says whoever commands it; one that is heard is not. A primary that serves by its own right
 * and has a witness goes on as it is: the two are a majority at its next start. Without one the other host would be needed
 * for that, so this host goes on by force, as the only member, which costs a restart of the database.
 */
export async function goOnAlone(path: string, status: StatusReport | null): Promise<RunOutcome> {
  if (status === null) return { phase: 'refused', message: 'the core does not answer' }
  const { node, peer, role, serving, gen, epoch, witness } = status
  if (role !== 'primary' || !serving)
    return {
      phase: 'refused',
      message: `host ${node} is ${serving ? role : `${role} and does not serve`}: it can't go on alone`,
    }
  if (peer.heardAgoMs !== null && peer.heardAgoMs < goneMs)
    return { phase: 'refused', message: `${peer.node} was heard here ${peer.heardAgoMs} ms ago: it is not gone` }
  const hasWitness = witness?.isMember === true || witness?.alternate?.isMember === true
  if (peer.isMember && !hasWitness) {
    const forced = await act({ path, verb: 'takeover', args: { gen, epoch, withWitness: false } })
    if (forced.phase !== 'done') return forced
  }
  return {
    phase: 'done',
    message: `${node} goes on alone, unprotected; what ${peer.node} knows opens nothing here any more`,
  }
}
/** A backup says something ten times a second. */
const goneMs = 10_000

/** The epoch goes along to the core, which refuses any other at the moment it acts. */
function callOf({ verb, args, only }: Command): { verb: string; args: Record<string, unknown> } | null {
  switch (verb) {
    case 'switchover':
      return only.epoch === undefined ? null : { verb, args: { epoch: only.epoch } }
    case 'takeover':
      if (only.gen === undefined || only.epoch === undefined) return null
      return {
        verb,
        args: { gen: args.overGen ?? only.gen, epoch: only.epoch, withWitness: args.withWitness === true },
      }
    case 'maintenance':
      return { verb, args: { forMs: args.forMs } }
    default:
      return null
  }
}

function whyOf(answer: unknown): string {
  const parsed = z.object({ why: z.string() }).safeParse(answer)
  return parsed.success ? parsed.data.why : ''
}

/** Cut to what the contract takes: a report that is refused as a whole tells nothing. */
function pairOf(status: StatusReport, check: CheckReport | null): NonNullable<HostReport['pair']> {
  const { replication, witness, peer } = status
  return {
    role: status.role,
    gen: status.gen,
    genHeard: status.genHeard,
    epoch: status.epoch,
    version: status.version,
    serving: status.serving,
    primary: status.primary,
    successor: status.successor,
    protection: status.protection,
    since: status.since,
    why: cut(status.why),
    sealed: status.sealed,
    maintenance: status.maintenance,
    peer: { heardAgoMs: peer.heardAgoMs, admitted: peer.admitted, why: cut(peer.why) },
    witness:
      witness === null
        ? null
        : {
            reach: witness.reach,
            voteP99Ms: witness.voteP99Ms,
            why: cut(witness.why),
            ...(witness.isVoid && { void: true }),
          },
    replication: { ...pick(replication), lastError: cut(replication.lastError) },
    vips: status.vips
      .slice(0, listMax)
      .map(({ address, interface: on, present, conflict }) => ({ address, interface: on, present, conflict })),
    alarms: status.alarms.slice(0, listMax).map(cut),
    check:
      check === null
        ? null
        : {
            takeover: check.takeover,
            switchover: check.switchover,
            blocking: check.blocking.slice(0, listMax).map(cut),
            warnings: check.warnings.slice(0, listMax).map(cut),
            predicted: { ...check.predicted, loss: cut(check.predicted.loss) },
          },
  }
}

const listMax = 32
const cut = (text: string): string => text.slice(0, 500)
const pick = ({ process, timeline, lsn, streaming, lagBytes, operation }: StatusReport['replication']) => ({
  process,
  timeline,
  lsn,
  streaming,
  lagBytes,
  operation,
})
