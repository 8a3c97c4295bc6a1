import assert from 'node:assert/strict'
import { existsSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { parseIscsiadm, parseIscsiLs } from '../../../node-agent/storage/discovery.ts'
import type { NameChange } from '../../../node-agent/storage/initiator-name.ts'
import { changeLocked, undoUnfinished } from '../../../node-agent/storage/name-change-process.ts'
import { initiatorNameFault, iscsiNameFault } from '../../../shared/hosts/iscsi-name.ts'
import { parsePortal } from '../../../shared/hosts/iscsi-portal.ts'
import { FakeIscsi, old } from './fake-iscsi.ts'

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

const wanted = 'iqn.2026-01.example:new'
const target = 'iqn.2026-01.example:t'
const loggedIn = () => {
  const host = new FakeIscsi()
  host.open({ target, portal: '10.0.0.9:3260', iface: 'default' })
  return host
}
const folder = mkdtempSync(join(existsSync('/dev/shm') ? '/dev/shm' : tmpdir(), 'understudy-iqn-'))
after(() => rmSync(folder, { recursive: true, force: true }))
const change = (host: FakeIscsi, part: Partial<NameChange> = {}) =>
  changeLocked({ host, folder }, { name: wanted, logOutSessions: true, theirs: null, ...part })

test('without a session the file is written, keeping its comments, and the daemon restarted', async () => {
  const host = new FakeIscsi()
  const result = await change(host, { logOutSessions: false })
  assert.equal(result.ok, true)
  assert.equal(host.text, `# by Debian\nInitiatorName=${wanted}\n`)
  assert.deepEqual(host.did, ['write', 'restart'])
})

test('a host that was to make up a name at its first start gets the one that is asked for, and keeps it', async () => {
  const host = new FakeIscsi()
  host.text = 'GenerateName=yes\n'
  const result = await change(host)
  assert.ok(result.ok, result.why)
  assert.equal(host.text, `InitiatorName=${wanted}\n`)
})

test('of several names in the file none is left but the new one', async () => {
  const host = new FakeIscsi()
  host.text = `InitiatorName=${old}\n# by hand\nInitiatorName=${old}2\n`
  assert.equal((await change(host)).ok, true)
  assert.equal(host.text, `InitiatorName=${wanted}\n# by hand\n`)
})

test('a name that whoever starts the daemon has overwritten is no success', async () => {
  const host = new FakeIscsi()
  host.rename = 'iqn.2026-01.example:managed'
  const result = await change(host)
  assert.match(
    result.why,
    /the file has the name iqn\.2026-01\.example:managed after the restart.*example:managed, which .* was left$/,
  )
})

test('a session that is logged in refuses the change and names its target', async () => {
  const host = loggedIn()
  const result = await change(host, { logOutSessions: false })
  assert.match(result.why, /1 session is logged in \(iqn\.2026-01\.example:t\).*log out first/)
  assert.deepEqual(host.did, [])
})

test('a device of a session that somebody uses is not taken away from under him, whatever was asked', async () => {
  const host = loggedIn()
  host.used = ['10.0.0.9:3260']
  const result = await change(host)
  assert.match(result.why, /in use: sdb \(\/srv\).*Unmount or stop these first; nothing was changed/)
  assert.deepEqual(host.did, [])
})

test('asked to, it logs out, writes, restarts, logs in, and looks at the session', async () => {
  const host = loggedIn()
  assert.deepEqual(await change(host), { ok: true, from: old, to: wanted, sessions: 1, why: 'seen in its sessions' })
  assert.deepEqual(host.did, ['logOut', 'write', 'restart', 'logIn'])
  assert.deepEqual(readdirSync(folder), ['lock'], 'nothing is left to be taken back')
})

for (const act of ['logOut', 'write', 'restart', 'logIn']) {
  test(`when ${act} fails, the host is as it was`, async () => {
    const host = loggedIn()
    host.fails[act] = 'the daemon is not there'
    const result = await change(host)
    assert.equal(result.ok, false)
    assert.match(result.why, /the daemon is not there; the old name is back/)
    isAsItWas(host)
  })
}

const namesOf = (host: FakeIscsi) => host.live.map(session => [session.portal, session.initiatorName]).sort()
function isAsItWas(host: FakeIscsi, portals: readonly string[] = ['10.0.0.9:3260']): void {
  assert.equal(host.text, `# by Debian\nInitiatorName=${old}\n`)
  assert.deepEqual(
    namesOf(host),
    portals.map(portal => [portal, old]),
  )
  assert.deepEqual(readdirSync(folder), ['lock'])
}

const portals = ['10.0.0.9:3260', '10.0.1.9:3260']
const twoSessions = () => {
  const host = new FakeIscsi()
  for (const portal of portals) host.open({ target, portal, iface: 'default' })
  return host
}
/** Log out twice, write, restart, log in twice. */
const acts = [1, 2, 3, 4, 5, 6]
const ends = acts.flatMap(at => [false, true].map(after => ({ at, after })))

test('killed in the middle of any step, and again in the middle of any step of the way back, the host is as it was or wholly changed', async () => {
  let stayed = 0
  for (const first of ends) {
    for (const second of [null, ...ends]) {
      const host = twoSessions()
      host.killed = first
      await change(host)
      assert.ok(host.dead, `${first.at}`)
      host.again()
      host.killed = second
      let undone = await undoUnfinished({ host, folder })
      if (host.dead) {
        host.again()
        undone = await undoUnfinished({ host, folder })
      }
      assert.ok(undone.whole, undone.why)
      if (host.text?.includes(wanted)) {
        stayed += 1
        assert.deepEqual(
          namesOf(host),
          portals.map(portal => [portal, wanted]),
        )
        assert.deepEqual(readdirSync(folder), ['lock'])
      } else isAsItWas(host, portals)
    }
  }
  assert.equal(stayed, 1 + ends.length, 'killed when all had been done')
})

test('after a loss of power in the middle of any step the host is as it was or wholly changed, whichever sessions its boot logs in', async () => {
  for (const end of ends) {
    for (const automatic of [[], portals.slice(0, 1), portals]) {
      const host = twoSessions()
      host.killed = end
      await change(host)
      host.again()
      host.live = []
      host.readName()
      for (const portal of automatic) host.open({ target, portal, iface: 'default' })
      const undone = await undoUnfinished({ host, folder })
      assert.ok(undone.whole, undone.why)
      const name = host.text?.includes(wanted) ? wanted : old
      assert.deepEqual(
        namesOf(host),
        portals.map(portal => [portal, name]),
      )
      assert.deepEqual(readdirSync(folder), ['lock'])
    }
  }
})

test('a session that a boot has logged in by the new name, and whose disk is in use by now, is left; the others follow it', async () => {
  const host = twoSessions()
  host.killed = { at: 4, after: false }
  await change(host)
  host.again()
  host.live = []
  host.readName()
  host.open({ target, portal: portals[0]!, iface: 'default' })
  host.used = portals
  host.deadPortal = portals[1]!
  const stuck = await undoUnfinished({ host, folder })
  assert.equal(stuck.whole, false)
  assert.match(
    stuck.why,
    /devices of sessions with the new name are in use by now: sdb \(\/srv\).*tries it again by itself/,
  )
  assert.deepEqual(namesOf(host), [[portals[0], wanted]], 'nothing was taken away')
  host.deadPortal = ''
  const done = await undoUnfinished({ host, folder })
  assert.match(done.why, /it stays/)
  assert.deepEqual(
    namesOf(host),
    portals.map(portal => [portal, wanted]),
  )
})

test('what could not be put back is tried again before the next change, which waits for it', async () => {
  const host = loggedIn()
  host.unreachable = target
  const failed = await change(host)
  assert.match(failed.why, /came back; and putting the old name back failed too: no session with .* came back/)
  assert.match(
    (await change(host)).why,
    /was under way when its process ended, and putting the old name back failed too/,
  )
  assert.deepEqual(host.live, [])
  host.unreachable = ''
  assert.match((await undoUnfinished({ host, folder })).why, /it was taken back, and the old name is back/)
  isAsItWas(host)
})

test('where the daemon can’t be started the old name is in the file again, and nothing is left to be tried', async () => {
  const host = new FakeIscsi()
  host.noDaemon = true
  assert.match((await change(host)).why, /iscsid can’t be started; the old name is back/)
  isAsItWas(host, [])
})

test('a second change, and whoever would take the first one back, are refused while that is under way', async () => {
  const host = loggedIn()
  let goOn = (): void => {}
  host.waits = new Promise(resolve => {
    goOn = resolve
  })
  const first = change(host)
  const [second, undone] = [await change(host, { name: `${wanted}2` }), await undoUnfinished({ host, folder })]
  for (const one of [second, undone]) assert.match(one.why, /another change of the iSCSI name is under way/)
  goOn()
  assert.equal((await first).ok, true)
  assert.deepEqual(namesOf(host), [['10.0.0.9:3260', wanted]])
})

test('a name that somebody else has given since is not written over; the sessions that were there come back by it', async () => {
  const host = loggedIn()
  host.killed = { at: 3, after: false }
  await change(host)
  host.again()
  host.text = 'InitiatorName=iqn.2026-01.example:third\n'
  assert.match((await undoUnfinished({ host, folder })).why, /the name iqn\.2026-01\.example:third, which .* was left$/)
  assert.equal(host.text, 'InitiatorName=iqn.2026-01.example:third\n')
  assert.equal(host.live.length, 1)
})

test('a damaged journal is told with its path, and nothing is changed', async () => {
  const host = loggedIn()
  const path = join(folder, 'initiator-name-change.json')
  writeFileSync(path, '{"version":1')
  try {
    const result = await change(host)
    assert.equal(result.ok, false)
    assert.match(
      result.why,
      /initiator-name-change\.json, which says how a change of the iSCSI name is taken back, is damaged/,
    )
    assert.deepEqual(host.did, [])
  } finally {
    rmSync(path)
  }
})

test('a session that does not come back is no proof of the new name: the old one is put back', async () => {
  const host = loggedIn()
  host.unreachable = target
  const result = await change(host)
  host.unreachable = ''
  assert.equal(result.ok, false)
  assert.match(result.why, /no session with iqn\.2026-01\.example:t at 10\.0\.0\.9:3260 came back/)
  assert.match(host.text ?? '', /InitiatorName=iqn\.2026-01\.example:old/)
  assert.equal((await undoUnfinished({ host, folder })).whole, true)
  isAsItWas(host)
})

test('of a target with a portal that is not reached only the sessions that were there are logged in again', async () => {
  const host = loggedIn()
  host.deadPortal = '10.1.0.9:3260'
  const result = await change(host)
  assert.ok(result.ok, result.why)
  assert.deepEqual(namesOf(host), [['10.0.0.9:3260', wanted]])
})

test('a session over an interface with an initiator name of its own is left alone', async () => {
  const host = loggedIn()
  host.open({ target, portal: '10.0.1.9:3260', iface: 'nic1' }, 'iqn.2026-01.example:nic1')
  host.used = ['10.0.1.9:3260']
  const result = await change(host)
  assert.match(result.why, /seen in its sessions; sessions with a name of their own interface were left alone: 1/)
  assert.deepEqual(namesOf(host), [
    ['10.0.0.9:3260', wanted],
    ['10.0.1.9:3260', 'iqn.2026-01.example:nic1'],
  ])
})

test('a name that the other host has is refused', async () => {
  const host = new FakeIscsi()
  const result = await change(host, { theirs: wanted })
  assert.match(result.why, /must differ from the name of every other host; the other host has it/)
  assert.deepEqual(host.did, [])
})

test('a bad name changes nothing', async () => {
  const host = new FakeIscsi()
  const result = await change(host, { name: 'iqn.2026-01.example:my host' })
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
