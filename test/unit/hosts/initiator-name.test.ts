import assert from 'node:assert/strict'
import { test } from 'node:test'
import { parseIscsiadm, parseIscsiLs } from '../../../node-agent/storage/discovery.ts'
import { changeInitiatorName, type IscsiHost, type Login } from '../../../node-agent/storage/initiator-name.ts'
import { initiatorNameFault, iscsiNameFault } from '../../../shared/hosts/iscsi-name.ts'
import { parsePortal } from '../../../shared/hosts/iscsi-portal.ts'

test('names that RFC 3720 allows are accepted', () => {
  for (const name of [
    'iqn.1993-08.org.debian:01:8f2a6d3c5b7e',
    'iqn.2026-01.example',
    'eui.02004567a425678d',
    'naa.52004567ba64678d',
    'naa.62004567ba64678d0123456789abcdef',
  ]) {
    assert.equal(iscsiNameFault(name), null, name)
  }
})

test('each wrong name gets the rule it breaks', () => {
  const wrong: [string, RegExp][] = [
    ['', /must not be empty/],
    ['iqn.2026-01.example:my host', /must not contain spaces/],
    ['iqn.2026-01.Example', /lower case/],
    ['iqn.2026-13.example', /month from 01 to 12, not 13/],
    ['iqn.26-01.example', /must have a date/],
    ['iqn.2026-01.exa_mple', /"exa_mple" is no part of one/],
    ['iqn.2026-01.example:', /something after the colon/],
    ['iqn.2026-01.example:ü', /may contain only/],
    ['eui.123', /16 hexadecimal digits/],
    ['naa.123', /16 or 32/],
    ['host-a', /must begin with/],
    [`iqn.2026-01.example:${'x'.repeat(220)}`, /at most 223 bytes/],
  ]
  for (const [name, rule] of wrong) assert.match(iscsiNameFault(name) ?? '', rule, name)
})

test('a name that another host has is refused with that host', () => {
  const others = [{ host: 'b', name: 'iqn.2026-01.example:b' }]
  assert.match(initiatorNameFault('iqn.2026-01.example:b', others) ?? '', /; b has it/)
  assert.equal(initiatorNameFault('iqn.2026-01.example:a', others), null)
})

/** An initiator in memory: a session keeps the name it was logged in with, as the kernel's do. */
class FakeIscsi implements IscsiHost {
  text: string | null = '# by Debian\nInitiatorName=iqn.2026-01.example:old\n'
  live: (Login & { initiatorName: string | null })[] = []
  used: string[] = []
  readonly did: string[] = []
  fails: { [act: string]: string } = {}
  /** iscsiadm ends without an error and this target is not there. */
  unreachable = ''
  /** A second portal of each target, which nobody reaches: a login that does not name a portal fails for it. */
  deadPortal = ''
  #name = 'iqn.2026-01.example:old'

  readText() {
    return this.text
  }
  async writeText(text: string) {
    const why = await this.#act('write', () => {
      this.text = text
    })
    if (why !== null) throw new Error(why)
  }
  async inUse() {
    return this.used
  }
  sessions() {
    return this.live
  }
  logOut() {
    return this.#act('logOut', () => {
      this.live = []
    })
  }
  async logIn(logins: readonly Login[]) {
    if (this.deadPortal !== '' && logins.some(({ portal }) => portal === null || portal === this.deadPortal))
      return `could not log in to ${this.deadPortal}`
    return this.#act('logIn', () => {
      const back = logins.filter(({ target }) => target !== this.unreachable)
      this.live = back.map(login => ({ ...login, initiatorName: this.#name }))
    })
  }
  restartDaemon() {
    return this.#act('restart', () => {
      this.#name = /InitiatorName=(\S+)/.exec(this.text ?? '')?.[1] ?? ''
    })
  }
  async #act(name: string, work: () => void): Promise<string | null> {
    this.did.push(name)
    const why = this.fails[name]
    if (why !== undefined) {
      delete this.fails[name]
      return why
    }
    work()
    return null
  }
}

const wanted = 'iqn.2026-01.example:new'
const loggedIn = () => {
  const host = new FakeIscsi()
  host.live = [{ target: 'iqn.2026-01.example:t', portal: '10.0.0.9:3260', initiatorName: 'iqn.2026-01.example:old' }]
  return host
}

test('without a session the file is written, keeping its comments, and the daemon restarted', async () => {
  const host = new FakeIscsi()
  const result = await changeInitiatorName(host, { name: wanted, logOutSessions: false, theirs: null })
  assert.equal(result.ok, true)
  assert.equal(host.text, `# by Debian\nInitiatorName=${wanted}\n`)
  assert.deepEqual(host.did, ['write', 'restart'])
})

test('a session that is logged in refuses the change and names its target', async () => {
  const host = loggedIn()
  const result = await changeInitiatorName(host, { name: wanted, logOutSessions: false, theirs: null })
  assert.match(result.why, /1 session is logged in \(iqn\.2026-01\.example:t\).*log out first/)
  assert.deepEqual(host.did, [])
})

test('a device of a session that somebody uses is not taken away from under him, whatever was asked', async () => {
  const host = loggedIn()
  host.used = ['sdb (/srv)']
  const result = await changeInitiatorName(host, { name: wanted, logOutSessions: true, theirs: null })
  assert.match(result.why, /in use: sdb \(\/srv\).*Unmount or stop these first; nothing was changed/)
  assert.deepEqual(host.did, [])
})

test('asked to, it logs out, writes, restarts, logs in, and looks at the session', async () => {
  const host = loggedIn()
  const result = await changeInitiatorName(host, { name: wanted, logOutSessions: true, theirs: null })
  assert.deepEqual(result, {
    ok: true,
    from: 'iqn.2026-01.example:old',
    to: wanted,
    sessions: 1,
    why: 'seen in its sessions',
  })
  assert.deepEqual(host.did, ['logOut', 'write', 'restart', 'logIn'])
})

for (const act of ['logOut', 'write', 'restart', 'logIn']) {
  test(`when ${act} fails, the host is as it was`, async () => {
    const host = loggedIn()
    host.fails[act] = 'the daemon is not there'
    const result = await changeInitiatorName(host, { name: wanted, logOutSessions: true, theirs: null })
    assert.equal(result.ok, false)
    assert.match(result.why, /the daemon is not there/)
    assert.equal(host.text, '# by Debian\nInitiatorName=iqn.2026-01.example:old\n')
    assert.deepEqual(
      host.live.map(session => session.initiatorName),
      ['iqn.2026-01.example:old'],
    )
  })
}

test('a session that does not come back is no proof of the new name: the old one is put back', async () => {
  const host = loggedIn()
  host.unreachable = 'iqn.2026-01.example:t'
  const result = await changeInitiatorName(host, { name: wanted, logOutSessions: true, theirs: null })
  assert.equal(result.ok, false)
  assert.match(
    result.why,
    /no session with iqn\.2026-01\.example:t at 10\.0\.0\.9:3260 came back; the old name is back/,
  )
  assert.match(host.text ?? '', /InitiatorName=iqn\.2026-01\.example:old/)
})

test('of a target with a portal that is not reached only the sessions that were there are logged in again', async () => {
  const host = loggedIn()
  host.deadPortal = '10.1.0.9:3260'
  const result = await changeInitiatorName(host, { name: wanted, logOutSessions: true, theirs: null })
  assert.ok(result.ok, result.why)
  assert.deepEqual(host.live, [{ target: 'iqn.2026-01.example:t', portal: '10.0.0.9:3260', initiatorName: wanted }])
})

test('a name that the other host has is refused', async () => {
  const host = new FakeIscsi()
  const result = await changeInitiatorName(host, { name: wanted, logOutSessions: true, theirs: wanted })
  assert.match(result.why, /must differ from the name of every other host; the other host has it/)
  assert.deepEqual(host.did, [])
})

test('a bad name changes nothing', async () => {
  const host = new FakeIscsi()
  const result = await changeInitiatorName(host, {
    name: 'iqn.2026-01.example:my host',
    logOutSessions: true,
    theirs: null,
  })
  assert.match(result.why, /"iqn\.2026-01\.example:my host" must not contain spaces/)
  assert.deepEqual(host.did, [])
})

test('a portal is an address with a port or without', () => {
  assert.equal(parsePortal('10.0.0.9'), '10.0.0.9:3260')
  assert.equal(parsePortal('10.0.0.9:860'), '10.0.0.9:860')
  assert.equal(parsePortal('fd00::9'), '[fd00::9]:3260')
  assert.equal(parsePortal('[fd00::9]:860'), '[fd00::9]:860')
  for (const wrong of ['storage.example', '10.0.0.9:0', '10.0.0.9:70000', '10.0.0', '']) {
    assert.equal(parsePortal(wrong), null, wrong)
  }
})

test('what iscsiadm and iscsi-ls print is read alike', () => {
  const targets = [{ portal: '127.0.0.1:3260', name: 'iqn.2026-01.example:t' }]
  assert.deepEqual(parseIscsiadm('127.0.0.1:3260,1 iqn.2026-01.example:t\n'), targets)
  assert.deepEqual(parseIscsiLs('Target:iqn.2026-01.example:t Portal:127.0.0.1:3260,1\n'), targets)
})
