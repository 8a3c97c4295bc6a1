import assert from 'node:assert/strict'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { test } from 'node:test'
import { foreignBootFile, foreignNicFile } from '../../../node-agent/network/managers.ts'
import type { NetworkManager } from '../../../shared/hosts/network.ts'

interface Case {
  manager: NetworkManager
  path: string
  text: string
  what: string
}

function withFiles(files: { [path: string]: string }, work: (root: string) => void): void {
  const root = mkdtempSync(join(tmpdir(), 'understudy-nic-'))
  try {
    for (const [path, text] of Object.entries(files)) {
      mkdirSync(dirname(join(root, path)), { recursive: true })
      writeFileSync(join(root, path), text)
    }
    work(root)
  } finally {
    rmSync(root, { recursive: true, force: true })
  }
}

const inNetplan = (what: string, text: string): Case => ({
  manager: 'netplan',
  path: '/etc/netplan/90-default.yaml',
  text,
  what,
})
const inNetworkd = (what: string, text: string): Case => ({
  manager: 'systemd-networkd',
  path: '/etc/systemd/network/20-wired.network',
  text,
  what,
})
const inIfupdown = (what: string, text: string): Case => ({
  manager: 'ifupdown',
  path: '/etc/network/interfaces',
  text,
  what,
})

const set: Case[] = [
  // As in Debian's cloud images.
  inNetplan(
    'netplan by a glob',
    'network:\n  version: 2\n  ethernets:\n    all-en:\n      match:\n        name: en*\n      dhcp4: true\n',
  ),
  inNetplan('netplan by a quoted glob', 'network:\n  ethernets:\n    all:\n      match:\n        name: "en*" # all\n'),
  inNetplan(
    'netplan by a list',
    'network:\n  ethernets:\n    all:\n      match:\n        name:\n          - eth*\n          - "eno*"\n',
  ),
  inNetplan(
    'netplan in one line',
    'network: {version: 2, ethernets: {all: {match: {name: [eth*, en*]}, dhcp4: true}}}\n',
  ),
  inNetplan('netplan by name in one line', 'network: {version: 2, ethernets: {eno1: {dhcp4: true}}}'),
  inNetplan(
    'netplan by the name it gives',
    'network:\r\n  ethernets:\r\n    id0:\r\n      match: {macaddress: "52:54:00:00:00:01"}\r\n      set-name: eno1\r\n',
  ),
  inNetworkd('networkd by the kind of device', '[Match]\nType=ether\n\n[Network]\nDHCP=yes\n'),
  inNetworkd('networkd by the kind of device, none made', '[Match]\nType=ether\nKind=!*\n\n[Network]\nDHCP=yes\n'),
  inNetworkd('networkd with spaces at the ends of lines', ' [Match] \nName = en* \n[Network]\nDHCP=yes\n'),
  inIfupdown('ifupdown over two lines', 'iface eno1 \\\n  inet dhcp\n'),
]
const notSet: Case[] = [
  inNetplan('netplan for others by a glob', 'network:\n  ethernets:\n    all:\n      match:\n        name: eth*\n'),
  inNetplan(
    'netplan in a comment',
    'network:\n  ethernets:\n    all:\n      match:\n        # name: en*\n        name: eth*\n',
  ),
  inNetworkd('networkd for what is made', '[Match]\nType=ether\nKind=veth\n\n[Network]\nDHCP=yes\n'),
  inNetworkd('networkd for others by kind', '[Match]\nType=wlan\n\n[Network]\nDHCP=yes\n'),
  inNetworkd(
    'networkd for one other NIC',
    '[Match]\nType=ether\nMACAddress=52:54:00:00:00:01\n\n[Network]\nDHCP=yes\n',
  ),
  inIfupdown('ifupdown without an address, in columns', 'auto  eno1\niface\teno1  inet  manual\n'),
  inIfupdown('ifupdown without an address over two lines', 'iface eno1 \\\n  inet manual\n'),
]
for (const { manager, path, text, what } of set) {
  test(`a NIC that is set up by ${what} can't be made part of a vSwitch`, () => {
    withFiles({ [path]: text }, root => assert.equal(foreignNicFile(root, { nic: 'eno1', manager }), path))
  })
}
for (const { manager, path, text, what } of notSet) {
  test(`a NIC is free for a vSwitch below ${what}`, () => {
    withFiles({ [path]: text }, root => assert.equal(foreignNicFile(root, { nic: 'eno1', manager }), null))
  })
}

test('what /etc/network/interfaces takes in from elsewhere counts as if it stood there', () => {
  const files = {
    '/etc/network/interfaces': 'source /etc/network/more/*.cfg\nsource-directory others\n',
    '/etc/network/more/lan.cfg': 'auto eno1\niface eno1 inet dhcp\n',
    '/etc/network/more/old.txt': 'iface eno3 inet dhcp\n',
    '/etc/network/others/br0': 'source /etc/network/interfaces\nauto br0\niface br0 inet static\n',
  }
  withFiles(files, root => {
    assert.equal(foreignNicFile(root, { nic: 'eno1', manager: 'ifupdown' }), '/etc/network/more/lan.cfg')
    assert.equal(foreignNicFile(root, { nic: 'eno3', manager: 'ifupdown' }), null)
    assert.equal(foreignBootFile(root, 'br0'), '/etc/network/others/br0')
  })
})
