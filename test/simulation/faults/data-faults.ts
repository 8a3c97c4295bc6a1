import type { Disk } from '../disk.ts'
import { type Act, nothing, type Scene } from './fault.ts'

/** What befalls the database's processes and the volumes. */

const databaseStop: Act = ({ pair, host }) => {
  const { cluster } = host
  const { life } = cluster
  cluster.stopped = true
  return () => {
    if (cluster.life !== life || host.power !== 'on') return
    cluster.stopped = false
    cluster.stream.pump()
    if (cluster.answers) pair.checks.answers(host)
  }
}

const cancelWaits: Act = ({ pair, host }) => {
  const { cluster } = host
  // A wait has to be there to be cancelled: replication stands still for a moment before.
  cluster.stream.holdUntil = pair.world.now + 150
  pair.world.after(120, () => {
    if (cluster.waiting.length > 0) pair.count('cancelled wait')
    cluster.cancelWaits()
  })
  return nothing
}

/** The one register and database volume, or one of the two. */
const diskOf = ({ host, fault }: Scene): Disk => (fault.x < 0.5 ? host.registerDisk : host.dataDisk)

const diskSlow: Act = scene => {
  const disk = diskOf(scene)
  disk.slowMs = 20 * 100 ** scene.fault.y
  return () => {
    disk.slowMs = 0
  }
}

const diskHang: Act = scene => {
  const disk = diskOf(scene)
  disk.hang()
  return () => disk.goOn()
}

const diskFull: Act = scene => {
  const disk = diskOf(scene)
  disk.full++
  return () => {
    if (disk.full > 0) disk.full--
  }
}

/** Until the operator replaces the disk. */
const ioError: Act = scene => {
  diskOf(scene).ioError = true
  return nothing
}

const writeFails: Act = ({ host, fault }) => {
  host.registerDisk.failNext = 1 + Math.floor(fault.y * 2)
  return () => {
    host.registerDisk.failNext = 0
  }
}

export const dataFaults = {
  postmasterKill: ({ host, fault }) => {
    host.cluster.losePostmaster(20 + fault.x * fault.x * 3000)
    return nothing
  },
  backendCrash: ({ host }) => {
    host.cluster.crash()
    return nothing
  },
  databaseStop,
  cancelWaits,
  checkpointerBusy: ({ pair, host, fault }) => {
    host.cluster.checkpointerBusyUntil = pair.world.now + fault.ms / 5
    return nothing
  },
  breakReplication: ({ host }) => {
    host.cluster.stream.breakConnection()
    return nothing
  },
  /** The primary has no longer what the standby would need next: only a clone helps. */
  logRemoved: ({ pair, host }) => {
    const standby = pair.hosts[pair.named ?? host.node].peer
    standby.cluster.logRemoved = true
    standby.cluster.stream.breakConnection()
    pair.count('log removed')
    return nothing
  },
  diskSlow,
  diskHang,
  diskFull,
  ioError,
  writeFails,
} satisfies { [kind: string]: Act }
