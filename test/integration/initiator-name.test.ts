import assert from 'node:assert/strict'
import { chmodSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { after, beforeEach, test } from 'node:test'
import { runNameChange, runUndo } from '../../node-agent/storage/name-change.ts'
import { fakeSysfs } from '../unit/hosts/fake-sysfs.ts'

/**
 * A change of the iSCSI name with its real processes, on a tree of sysfs in which an iscsiadm and a systemctl of the test's
 * log sessions in and out as open-iscsi's do (no container has the kernel module): each can be told to kill whoever called.
 */
const old = 'iqn.2026-01.example.host:old'
const wanted = 'iqn.2026-01.example.host:new'
const tree = fakeSysfs('etc/iscsi/initiatorname.iscsi = x')
const at = (path: string): string => join(tree.root, path)
const place = { folder: at('state'), socket: null, root: tree.root }
const change = { name: wanted, logOutSessions: true, theirs: null }
const path = process.env.PATH
process.env.PATH = `${at('bin')}:${path}`
after(() => {
  process.env.PATH = path
  tree.remove()
})

/** `$root/kill` names the program and the word at which its caller is killed, once. */
const killed = `
if [ "$(cat $root/kill 2>/dev/null)" = "$program $word" ]; then rm $root/kill; kill -9 $PPID; exit 1; fi`
const iscsiadm = `
program=iscsiadm; for word; do :; done
session=$root/sys/class/iscsi_session/session1
connection=$root/sys/class/iscsi_connection/connection1:0
case $word in
  --logout) [ -d $session ] || exit 21; rm -r $session ;;
  --login)
    [ -d $session ] && exit 15
    mkdir -p $session $connection
    echo iqn.2026-01.example.store:data > $session/targetname
    echo LOGGED_IN > $session/state
    echo default > $session/ifacename
    cp $root/daemon $session/initiatorname
    echo 10.0.0.9 > $connection/persistent_address
    echo 3260 > $connection/persistent_port ;;
esac
echo $word >> $root/did
${killed}`
const systemctl = `
program=systemctl; word=$1
sed -n 's/^InitiatorName=//p' $root/etc/iscsi/initiatorname.iscsi > $root/daemon
echo $word >> $root/did
${killed}`

function program(name: string, script: string): void {
  const file = at(`bin/${name}`)
  mkdirSync(dirname(file), { recursive: true })
  writeFileSync(file, `#!/bin/sh\nroot=${tree.root}\n${script}\n`)
  chmodSync(file, 0o755)
}
program('iscsiadm', iscsiadm)
program('systemctl', systemctl)

const read = (name: string): string => readFileSync(at(name), 'utf8').trim()
const host = () => ({
  file: read('etc/iscsi/initiatorname.iscsi'),
  session: read('sys/class/iscsi_session/session1/initiatorname'),
  journal: readdirSync(at('state')).filter(name => name !== 'lock'),
})

beforeEach(() => {
  rmSync(at('did'), { force: true })
  writeFileSync(at('etc/iscsi/initiatorname.iscsi'), `InitiatorName=${old}\n`)
  const session = at('sys/class/iscsi_session/session1')
  mkdirSync(session, { recursive: true })
  for (const [name, text] of Object.entries({
    targetname: 'iqn.2026-01.example.store:data',
    state: 'LOGGED_IN',
    ifacename: 'default',
    initiatorname: old,
  }))
    writeFileSync(join(session, name), `${text}\n`)
  mkdirSync(at('sys/class/iscsi_connection/connection1:0'), { recursive: true })
  writeFileSync(at('sys/class/iscsi_connection/connection1:0/persistent_address'), '10.0.0.9\n')
  writeFileSync(at('sys/class/iscsi_connection/connection1:0/persistent_port'), '3260\n')
  writeFileSync(at('daemon'), `${old}\n`)
})

test('the name is changed by a process of its own, and seen in the session', async () => {
  const result = await runNameChange(place, change)
  assert.ok(result.ok, result.why)
  assert.deepEqual(host(), { file: `InitiatorName=${wanted}`, session: wanted, journal: [] })
  assert.deepEqual(read('did').split('\n'), ['--logout', 'restart', '--login'])
})

for (const [step, why] of [
  ['iscsiadm --logout', /taken back, and the old name is back/],
  ['systemctl restart', /taken back, and the old name is back/],
  ['iscsiadm --login', /was done: it stays/],
] as const) {
  test(`a process that is killed at "${step}" is followed by one that ends what it began, and the answer says so`, async () => {
    writeFileSync(at('kill'), step)
    const result = await runNameChange(place, change)
    assert.equal(result.ok, false)
    assert.match(result.why, /the process of the change ended without a word/)
    assert.match(result.why, why)
    const name = /stays/.test(result.why) ? wanted : old
    assert.deepEqual(host(), { file: `InitiatorName=${name}`, session: name, journal: [] })
  })
}

test('of two changes at once one is made and the other is refused', async () => {
  const results = await Promise.all([
    runNameChange(place, change),
    runNameChange(place, { ...change, name: `${wanted}2` }),
  ])
  const made = results.filter(one => one.ok)
  // On a slow machine the second may begin when the first has ended.
  for (const { ok, why } of results) if (!ok) assert.match(why, /another change of the iSCSI name is under way/)
  assert.ok(made.length >= 1)
  const { file, session, journal } = host()
  assert.equal(file, `InitiatorName=${session}`)
  assert.ok(made.some(one => one.ok && one.to === session))
  assert.deepEqual(journal, [])
})

test('where nothing was left, nothing is done', async () => {
  assert.deepEqual(await runUndo(place), { whole: true, why: 'no change was under way' })
  assert.equal(host().session, old)
})
