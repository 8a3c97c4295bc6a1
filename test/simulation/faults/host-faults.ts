import { type ProfileName, profileNames } from '../../../shared/protocol/timing.ts'
import type { Host } from '../host.ts'
import { crashAt } from './crash-at.ts'
import { type Act, nothing } from './fault.ts'

/** What befalls a machine, its clock or its agent. */

const powerCut: Act = ({ host }) => {
  host.powerCut()
  return () => host.boot()
}

/** Both hosts at once, the witness too now and then; they come back in either order. */
const powerCutBoth: Act = ({ pair, host, fault }) => {
  const { witness } = pair
  const withWitness = fault.x < 0.3
  pair.each(one => one.powerCut())
  if (withWitness) witness.down++
  return () => {
    const lateMs = 100 * 100 ** fault.y
    host.boot()
    pair.world.after(lateMs, () => host.peer.boot())
    if (withWitness) pair.world.after(lateMs * fault.x * 5, () => witness.backUp())
  }
}

/**
 * The backup's volume loses a tail that it had acknowledged: a lying flush, or a snapshot. Only while the primary has
 * everything, and down to below the position that the register still holds after that power cut: less is not noticed.
 */
const lostTail: Act = ({ pair, host }) => {
  const { cluster, peer } = host
  const whole = pair.acknowledged.lackingIn(peer.cluster.log) === null && peer.serves
  if (cluster.process !== 'standby' || !whole) return nothing
  host.powerCut()
  const { maxFlushed } = host.file.content
  const end = maxFlushed.lsn - 100
  if (maxFlushed.timeline === cluster.log.tl.number && end > cluster.log.tl.fork && end < cluster.log.end) {
    cluster.log = { tl: cluster.log.tl, end }
    pair.count('lost tail')
  }
  return () => host.boot()
}

const agentKill: Act = ({ host, fault }) => {
  host.agent.crash(fault.x < 0.5 ? fault.ms / 20 : fault.ms)
  return nothing
}

const agentUpgrade: Act = ({ pair, host, fault }) => {
  pair.count('agent upgrade')
  host.agent.crash(20 + fault.x * 200)
  return nothing
}

/**
 * One host is given another profile, so leases of another length, by a new start of its agent; half of the time the other
 * one too, a while later. Now and then the primary is lost as its backup starts anew, so that what the backup promised
 * with its old settings matters. In the end both have their own profile again, one after the other.
 */
const anotherProfile: Act = ({ pair, host, fault }) => {
  const { x, y, ms } = fault
  const own = pair.options.profile
  const others = profileNames.filter(name => name !== own)
  const other = others[Math.floor(x * others.length)] ?? own
  const both = (x * 64) % 1 < 0.5
  const loses = fault.role === 'backup' && (y * 64) % 1 < 0.4
  let over = false
  const give = (to: Host, profile: ProfileName) => {
    to.agent.profile = profile
    if (to.agent.timing.profile !== profile) to.agent.crash(20 + y * 200)
  }
  give(host, other)
  pair.count(both ? 'another profile on both hosts' : 'another profile on one host')
  if (loses) host.peer.powerCut()
  if (both) pair.world.after(300 + (y * ms) / 4, () => !over && give(host.peer, other))
  return () => {
    over = true
    if (loses) host.peer.boot()
    give(host, own)
    pair.world.after(100 + y * 2000, () => give(host.peer, own))
  }
}

const agentStop: Act = ({ host }) => {
  host.agent.pause()
  return () => {
    if (host.power === 'on') host.agent.goOn({ jump: false })
  }
}

/** Wall time leaps while the agent does not run: it takes that for a pause of the machine. */
const wallJump: Act = ({ host }) => {
  host.agent.pause()
  return () => {
    if (host.power === 'on') host.agent.goOn({ jump: true })
  }
}

const pause =
  (how: 'suspend' | 'stopped clock' | 'clock goes on'): Act =>
  ({ host }) => {
    host.pause(how)
    return () => host.goOn()
  }

/** New disks, while the other host serves and has everything. */
const reimage: Act = ({ pair, host }) => {
  if (!pair.operator.replaceable(host)) return nothing
  host.reimage()
  pair.count('host re-imaged')
  return () => host.boot()
}

/**
 * The host leaves in an orderly way, for a while or for good: told so, it has a moment, then its power goes. Nobody switches
 * one off that was to leave for good and was refused, or stays because it could not hand over.
 */
const leave: Act = ({ pair, host, fault }) => {
  pair.count('leave')
  const command = fault.x < 0.5 ? 'leave' : 'depart'
  host.agent.command({ command })
  pair.world.after(300 + fault.x * 2000, () => {
    if (command === 'leave' || host.state.duty.leaving === 'for good') host.powerCut()
  })
  return () => pair.world.after(2500, () => host.boot())
}

export const hostFaults = {
  powerCut,
  powerCutBoth,
  lostTail,
  agentKill,
  agentStop,
  agentUpgrade,
  anotherProfile,
  suspend: pause('suspend'),
  hostPause: pause('clock goes on'),
  stoppedClock: pause('stopped clock'),
  wallJump,
  reimage,
  crashAt,
  leave,
} satisfies { [kind: string]: Act }
