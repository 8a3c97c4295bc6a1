import type { DatabaseView } from '../../shared/protocol/types.ts'
import type { Cluster } from './postgres.ts'
import { contains, type Timeline } from './wal.ts'

/** A TCP segment that got lost is sent again after this. */
const retransmitMs = 200
const monitorMs = 500
const holdPollMs = 20

/** One replication connection. Each side believes in it until it hears of its end, or gives up. */
export interface Session {
  id: number
  primary: Cluster
  standby: Cluster
  /** The standby's log is a prefix of the primary's. If not, PostgreSQL shows it as streaming for moments all the same. */
  good: boolean
  openAtPrimary: boolean
  openAtStandby: boolean
  sent: number
  shipping: boolean
  reported: number
  heardAt: number
}

/** Both ends of a cluster's streaming replication: what it sends as a primary, what it follows as a standby. */
export class Stream {
  private readonly cluster: Cluster
  private sender: Session | null = null
  private receiver: Session | null = null
  private peer: Cluster | null = null
  /** Only a primary that bears this marker is followed. */
  private followEpoch = 0
  private received: { tl: Timeline; end: number } | null = null
  private flushing = false
  private connecting = false
  /** Nothing leaves the walsender before: a congested link, or a standby that is behind. */
  holdUntil = 0
  private sessions = 0

  constructor(cluster: Cluster) {
    this.cluster = cluster
  }

  setPeer(peer: Cluster): void {
    this.peer = peer
  }

  get reported(): number {
    return this.sender?.openAtPrimary ? this.sender.reported : 0
  }

  get receiving(): boolean {
    return this.receiver?.openAtStandby === true
  }

  senderView(): DatabaseView['sender'] {
    const s = this.sender
    if (s === null || !s.openAtPrimary) return null
    return { session: `${s.standby.node}${s.id}`, timeline: this.cluster.log.tl.number, flushedLsn: s.reported }
  }

  // ------------------------------------------------------------ standby

  follow(epoch: number): void {
    this.followEpoch = epoch
    this.received = null
    this.flushing = false
    this.reconnect(5)
  }

  private reconnect(delayMs: number): void {
    if (this.connecting) return
    this.connecting = true
    const { world, random, options } = this.cluster.parts
    const life = this.cluster.life
    world.after(delayMs + random.between(1, 15), () => {
      this.connecting = false
      if (life !== this.cluster.life) {
        if (this.cluster.process === 'standby' && this.receiver === null) this.reconnect(options.retryIntervalMs)
        return
      }
      this.connect()
    })
  }

  private connect(): void {
    const me = this.cluster
    const { world, network, random, options } = me.parts
    if (me.process !== 'standby' || this.receiver !== null) return
    const up = this.peer!
    const reachable = network.streams(me.node, up.node) && network.streams(up.node, me.node) && !me.stopped
    // "requested WAL segment has already been removed": the connection ends at once.
    const refused = up.process !== 'primary' || up.stopped || up.marker !== this.followEpoch || me.logRemoved
    if (!reachable || refused) {
      return this.reconnect(options.retryIntervalMs)
    }
    const good = contains(up.log, me.log.tl, me.log.end)
    const session: Session = {
      id: ++this.sessions,
      primary: up,
      standby: me,
      good,
      openAtPrimary: true,
      openAtStandby: true,
      sent: me.log.end,
      shipping: false,
      reported: 0,
      heardAt: world.now,
    }
    if (up.stream.sender !== null) up.stream.sender.openAtPrimary = false
    up.stream.sender = session
    this.receiver = session
    this.received = null
    if (good) me.log = { tl: up.log.tl, end: me.log.end }
    this.report(session)
    if (good) up.stream.pump()
    else world.after(random.between(20, 80), () => this.breakOff(session))
    this.watch(session)
    up.parts.watch.changed(up)
    me.parts.watch.changed(me)
  }

  /** The promotion stops the receiver first; what it had received is on disk by then, or was not received. */
  stopReceiver(): void {
    const session = this.receiver
    if (session !== null && this.received !== null && session.good && this.cluster.parts.random.chance(0.5)) {
      if (this.received.end > this.cluster.log.end) this.cluster.log = this.received
    }
    this.received = null
    this.followEpoch = -1
    if (session !== null) this.breakOff(session)
  }

  private flushReceived(session: Session): void {
    if (this.flushing) return
    const received = this.received
    const me = this.cluster
    if (received === null || received.end <= me.log.end) return
    this.flushing = true
    const life = me.life
    me.parts.disk.flush(() => {
      if (life !== me.life) return
      this.flushing = false
      if (me.parts.disk.ioError || me.parts.disk.full > 0) return me.crash()
      if (this.receiver !== session) return
      if (me.stopped) {
        me.parts.world.after(20, () => life === me.life && this.flushReceived(session))
        return
      }
      if (received.end > me.log.end) me.log = { tl: received.tl, end: received.end }
      me.insertLsn = me.log.end
      me.visible = me.log.end
      me.flushedOnce = { tl: me.log.tl, end: me.log.end }
      this.report(session)
      this.flushReceived(session)
    })
  }

  private report(session: Session): void {
    const { world, network } = this.cluster.parts
    const me = this.cluster
    const flushed = me.log.end
    const arrive = () => {
      if (!session.openAtPrimary || session.primary.stream.sender !== session) return
      if (!network.streams(me.node, session.primary.node) || session.primary.stopped) {
        world.after(retransmitMs, arrive)
        return
      }
      if (flushed > session.reported) session.reported = flushed
      session.primary.releaseUpTo(session.reported)
    }
    world.after(network.latency(me.node, session.primary.node), arrive)
  }

  // ------------------------------------------------------------ primary

  pump(): void {
    const session = this.sender
    if (session === null || !session.openAtPrimary || !session.good || session.shipping || this.cluster.stopped) return
    const log = this.cluster.log
    if (session.sent >= log.end) return
    session.shipping = true
    const { world, network } = this.cluster.parts
    const tl = log.tl
    const upTo = log.end
    const deliver = () => {
      if (!session.openAtStandby) return
      if (!network.streams(this.cluster.node, session.standby.node) || world.now < this.holdUntil) {
        world.after(world.now < this.holdUntil ? holdPollMs : retransmitMs, deliver)
        return
      }
      session.shipping = false
      session.sent = upTo
      const standby = session.standby.stream
      if (standby.receiver === session) {
        standby.received = { tl, end: upTo }
        standby.flushReceived(session)
      }
      if (session.primary.stream.sender === session) session.primary.stream.pump()
    }
    world.after(network.latency(this.cluster.node, session.standby.node), deliver)
  }

  // ------------------------------------------------------------ ends

  /** All processes of this cluster are gone: the kernel tells the other side, if there is still a kernel and a way. */
  processesGone(power: 'on' | 'off'): void {
    const { world, random, network } = this.cluster.parts
    this.received = null
    this.flushing = false
    for (const session of [this.sender, this.receiver]) {
      if (session === null) continue
      const atPrimary = session.primary === this.cluster
      if (atPrimary) session.openAtPrimary = false
      else session.openAtStandby = false
      const other = atPrimary ? session.standby : session.primary
      if (power === 'on') {
        world.after(random.between(1, 15), () => {
          if (network.streams(this.cluster.node, other.node)) this.breakOff(session)
        })
      }
    }
    this.sender = null
    this.receiver = null
  }

  breakOff(session: Session): void {
    const { primary, standby } = session
    session.openAtPrimary = false
    session.openAtStandby = false
    if (primary.stream.sender === session) {
      primary.stream.sender = null
      primary.parts.watch.changed(primary)
    }
    if (standby.stream.receiver === session) {
      standby.stream.receiver = null
      standby.stream.received = null
      standby.parts.watch.changed(standby)
      if (standby.process === 'standby') standby.stream.reconnect(standby.parts.options.retryIntervalMs)
    }
  }

  /** Kills the walsender or the receiver: it reconnects. */
  breakConnection(): void {
    const session = this.sender ?? this.receiver
    if (session !== null) this.breakOff(session)
  }

  private watch(session: Session): void {
    const { world, network, options } = this.cluster.parts
    const look = () => {
      if (!session.openAtPrimary && !session.openAtStandby) return
      const { primary, standby } = session
      const alive =
        session.openAtPrimary &&
        session.openAtStandby &&
        !primary.stopped &&
        !standby.stopped &&
        network.streams(primary.node, standby.node) &&
        network.streams(standby.node, primary.node)
      if (alive) session.heardAt = world.now
      else if (world.now - session.heardAt > options.senderTimeoutMs) return this.breakOff(session)
      primary.stream.pump()
      world.after(monitorMs, look)
    }
    world.after(monitorMs, look)
  }
}
