import type { IscsiHost, Login, Session } from '../../../node-agent/storage/initiator-name.ts'

export const old = 'iqn.2026-01.example:old'

/** An initiator in memory: a session keeps the name it was logged in with, as the kernel's do. */
export class FakeIscsi implements IscsiHost {
  text: string | null = `# by Debian\nInitiatorName=${old}\n`
  live: Session[] = []
  used: string[] = []
  readonly did: string[] = []
  fails: { [act: string]: string } = {}
  /** iscsiadm ends without an error and this target is not there. */
  unreachable = ''
  /** A second portal of each target, which nobody reaches: a login that does not name a portal fails for it. */
  deadPortal = ''
  /** The process is killed in the middle of this act, counted from 1: before the host has done it, or after. */
  killed: { at: number; after: boolean } | null = null
  dead = false
  /** Written to the file at each start of the daemon, by whatever manages this host. */
  rename = ''
  /** As on a host whose kernel has no module for it. */
  noDaemon = false
  /** An act goes on when this is over. */
  waits: Promise<void> = Promise.resolve()
  #acts = 0
  #ids = 0
  #name = old

  readText() {
    this.#alive()
    return this.text
  }
  async writeText(text: string) {
    const why = await this.#act('write', () => {
      this.text = text
    })
    if (why !== null) throw new Error(why)
  }
  async inUse() {
    this.#alive()
    return this.live.flatMap(({ id, portal }) =>
      this.used.includes(portal ?? '') ? [{ session: id, what: 'sdb (/srv)' }] : [],
    )
  }
  sessions() {
    this.#alive()
    return [...this.live]
  }
  async settled() {
    return null
  }
  async logOut(ids: readonly string[]) {
    for (const id of ids) {
      const why = await this.#act('logOut', () => {
        this.live = this.live.filter(session => session.id !== id)
      })
      if (why !== null) return why
    }
    return null
  }
  async logIn(logins: readonly Login[]) {
    if (this.deadPortal !== '' && logins.some(({ portal }) => portal === null || portal === this.deadPortal))
      return `could not log in to ${this.deadPortal}`
    for (const login of logins) {
      const why = await this.#act('logIn', () => {
        if (login.target !== this.unreachable) this.open(login)
      })
      if (why !== null) return why
    }
    return null
  }
  restartDaemon() {
    return this.noDaemon ? Promise.resolve('iscsid can’t be started') : this.#act('restart', () => this.readName())
  }
  daemonRuns() {
    return !this.noDaemon
  }
  open(login: Login, initiatorName = this.#name) {
    this.#ids += 1
    this.live.push({ ...login, id: `session${this.#ids}`, initiatorName })
  }
  readName() {
    // Debian's iscsid.service runs startup-checks.sh first.
    if (/^GenerateName=yes/m.test(this.text ?? '')) this.text = 'InitiatorName=iqn.1993-08.org.debian:01:made\n'
    if (this.rename !== '') this.text = `InitiatorName=${this.rename}\n`
    this.#name = /InitiatorName=(\S+)/.exec(this.text ?? '')?.[1] ?? ''
  }
  /** Another process: whoever looks at the host next. */
  again() {
    this.dead = false
    this.killed = null
    this.#acts = 0
  }
  #alive() {
    if (this.dead) throw new Error('this process was killed')
  }
  async #act(name: string, work: () => void): Promise<string | null> {
    this.#alive()
    await this.waits
    this.did.push(name)
    const why = this.fails[name]
    if (why !== undefined) {
      delete this.fails[name]
      return why
    }
    this.#acts += 1
    const kill = this.#acts === this.killed?.at
    if (!kill || this.killed?.after === true) work()
    if (kill) {
      this.dead = true
      this.#alive()
    }
    return null
  }
}
