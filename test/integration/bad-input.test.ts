import assert from 'node:assert/strict'
import { execFileSync, spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import {
  chmodSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { postgresBinDir } from '../../infra/lab/postgres-programs.ts'
import type { ConfigInput } from '../../node-agent/config.ts'
import { encodeToken, type JoinToken } from '../../node-agent/pair/token.ts'
import { whyNoNamespaces } from './support/netns.ts'
import { createPair, HOST_LINK4, HOST4, PEER_LAN4, PEER_LINK4, type TestPair, VIP4 } from './support/pair.ts'

/**
 * Bad input: each case gets one clear sentence with the value and the remedy, an exit code that is not 0, and nothing was
 * changed: neither a file nor an address nor a rule of the kernel.
 */
const entry = fileURLToPath(new URL('../../node-agent/cli/main.ts', import.meta.url))
const strangersAddress = '10.9.0.77'

describe('bad input', { skip: whyNoNamespaces(), timeout: 300_000 }, () => {
  let net: TestPair
  let home = ''
  before(() => {
    net = createPair('ubad')
    net.client.exec('ip', 'address', 'add', `${strangersAddress}/24`, 'dev', 'lan0')
    home = mkdtempSync(join(tmpdir(), 'understudy-bad-'))
    chmodSync(home, 0o755)
    for (const name of ['foreign', 'other-version', 'cluster', 'standby', 'programs']) mkdirSync(join(home, name))
    writeFileSync(join(home, 'foreign', 'notes.txt'), 'mine')
    writeFileSync(join(home, 'other-version', 'PG_VERSION'), '9.6\n')
    writeFileSync(join(home, 'cluster', 'PG_VERSION'), '15\n')
    for (const name of ['PG_VERSION', 'standby.signal', 'postgresql.conf', 'pg_hba.conf'])
      writeFileSync(join(home, 'standby', name), name === 'PG_VERSION' ? '15\n' : '')
    writeFileSync(join(home, 'programs', 'postgres'), '')
  })
  after(async () => {
    await net.remove()
    rmSync(home, { recursive: true, force: true })
  })

  const config = (): ConfigInput => ({
    pair: 'orders',
    node: 'a',
    stateDir: join(home, 'state'),
    socket: join(home, 'run', 'agent.sock'),
    pairKeyFile: join(home, 'state', 'pair.key'),
    hostKeyFile: join(home, 'state', 'host.key'),
    peer: { paths: [{ local: HOST_LINK4, peer: PEER_LINK4, port: 7400 }] },
    vips: [{ address: `${VIP4}/24`, interface: 'lan0' }],
    protectedPorts: [5432],
    witness: null,
    postgres: {
      binDir: postgresBinDir(),
      dataDir: join(home, 'data'),
      socketDir: join(home, 'pg'),
      port: 5432,
      user: 'postgres',
      mode: 'create',
    },
  })
  const withPostgres = (part: object): ConfigInput => ({ ...config(), postgres: { ...config().postgres, ...part } })

  const token = (part: Partial<JoinToken> = {}): string =>
    encodeToken({
      v: 1,
      pair: 'orders',
      node: 'a',
      pairKey: 'k'.repeat(43),
      hostKeyPem: 'p',
      witness: null,
      tls: null,
      agreed: {
        profile: 'default',
        paths: [{ local: HOST_LINK4, peer: PEER_LINK4, port: 7400 }],
        vips: [`${VIP4}/24`],
        protectedPorts: [5432],
        postgresPort: 5432,
        postgresMajor: 15,
      },
      ...part,
    })

  /** Everything that a set-up could leave behind. */
  function traces(): string {
    const files = readdirSync(home, { recursive: true, encoding: 'utf8' })
      .filter(name => !name.startsWith('input'))
      .sort()
      .map(name => {
        const path = join(home, name)
        const isFile = statSync(path).isFile()
        return `${name} ${isFile ? createHash('sha256').update(readFileSync(path)).digest('hex') : ''}`
      })
    return [...files, net.host.exec('ip', '-o', 'address'), net.host.exec('nft', 'list', 'ruleset')].join('\n')
  }

  function understudy(args: string[], options: { env?: NodeJS.ProcessEnv } = {}) {
    const node = [process.execPath, '--disable-warning=ExperimentalWarning', entry, ...args]
    const argv = ['netns', 'exec', net.host.name, ...node]
    const ran = spawnSync('/usr/sbin/ip', argv, { encoding: 'utf8', env: options.env ?? process.env, timeout: 60_000 })
    return { code: ran.status, stderr: ran.stderr }
  }

  function refused(args: string[], want: { code: number; says: RegExp }, options = {}): void {
    const before = traces()
    const { code, stderr } = understudy(args, options)
    assert.match(stderr, want.says, `${args.join(' ')} said: ${stderr}`)
    assert.equal(code, want.code, stderr)
    assert.ok(!/\n\s+at /.test(stderr), `a stack is no sentence: ${stderr}`)
    assert.equal(traces(), before, `${args.join(' ')} changed something`)
  }

  const init = (input: object, says: RegExp, options = {}): void => {
    writeFileSync(join(home, 'input.json'), JSON.stringify(input))
    refused(['pair', 'init', '--config', join(home, 'input.json')], { code: 3, says }, options)
  }
  const join_ = (input: object, text: string, want: { code: number; says: RegExp }): void => {
    writeFileSync(join(home, 'input.json'), JSON.stringify(input))
    writeFileSync(join(home, 'input.token'), text)
    refused(['pair', 'join', '--config', join(home, 'input.json'), '--token-file', join(home, 'input.token')], want)
  }

  test('a wrong or missing option, an unknown key, a bad address', () => {
    refused(['pair', 'init', '--tokn-file', 'x'], { code: 2, says: /unknown option '--tokn-file'/ })
    writeFileSync(join(home, 'input.json'), JSON.stringify(config()))
    const tokenless = {
      code: 2,
      says: /'--token-file <path>' is missing, and this host is none that left its pair: give/,
    }
    refused(['pair', 'join', '--config', join(home, 'input.json')], tokenless)
    refused(['maintenance', 'on', '--for', '90'], { code: 2, says: /write it like 90s, 30m or 2h/ })
    refused(['witness'], { code: 2, says: /required option '--listen <address:port>' not specified/ })
    refused(['pair', 'init', '--config', '/nowhere.json'], { code: 3, says: /\/nowhere\.json .*cannot be read/s })
    init({ ...config(), vipps: [] }, /vipps is not a key of this configuration; correct its spelling/)
    init(
      { ...config(), peer: { paths: [{ local: HOST_LINK4, peer: '10.9.1', port: 7400 }] } },
      /peer\.paths\[0\]\.peer "10\.9\.1" must be an IPv4 or IPv6 address.*write it like/,
    )
  })

  test('a VIP outside the subnet, on an interface that is not there, or in use', () => {
    init(
      { ...config(), vips: [{ address: '10.8.0.100/24', interface: 'lan0' }] },
      /vips\[0\]\.address "10\.8\.0\.100\/24" lies in no subnet of lan0, which has 10\.9\.0\.1\/24/,
    )
    init(
      { ...config(), vips: [{ address: `${VIP4}/24`, interface: 'lan9' }] },
      /vips\[0\]\.interface "lan9" does not exist on this host; `ip -br link`/,
    )
    init(
      { ...config(), vips: [{ address: `${strangersAddress}/24`, interface: 'lan0' }] },
      /vips\[0\]\.address "10\.9\.0\.77\/24" is in use by 52:54:00:00:09:09 on lan0; free it there/,
    )
    init(
      {
        ...config(),
        vips: [{ address: `${HOST4}/24`, interface: 'lan0' }],
        peer: { paths: [{ local: HOST4, peer: PEER_LAN4, port: 7400 }] },
      },
      /"10\.9\.0\.1\/24" is also peer\.paths\[0\]\.local; a VIP moves/,
    )
  })

  test('a data directory of another version, of something else, of another cluster, or of a standby', () => {
    init(
      withPostgres({ dataDir: join(home, 'other-version'), mode: 'adopt' }),
      /is a cluster of PostgreSQL 9\.6, postgres\.binDir holds \d+; name the bin folder/,
    )
    init(
      withPostgres({ dataDir: join(home, 'foreign') }),
      /foreign" holds something that is no PostgreSQL cluster \(notes\.txt\); name another/,
    )
    init(
      withPostgres({ dataDir: join(home, 'cluster') }),
      /holds a cluster already and postgres\.mode is "create"; set postgres\.mode to "adopt"/,
    )
    init(withPostgres({ dataDir: join(home, 'standby'), mode: 'adopt' }), /is a standby of another primary; promote it/)
    init(withPostgres({ dataDir: join(home, 'nothing'), mode: 'adopt' }), /is absent and postgres\.mode is "adopt"/)
    join_(withPostgres({ dataDir: join(home, 'cluster') }), token(), {
      code: 3,
      says: /holds a cluster already; the joining host gets a copy/,
    })
  })

  test('a token of another pair, or that contradicts the configuration, or that is none', () => {
    join_(config(), token({ pair: 'billing' }), {
      code: 3,
      says: /pair "orders" differs from what the token says: "billing"; both hosts must agree/,
    })
    join_(config(), token({ node: 'b' }), { code: 3, says: /node "a" differs from what the token says: "b"/ })
    join_({ ...config(), profile: 'fast' }, token(), {
      code: 3,
      says: /profile "fast" differs from what the token says: "default"/,
    })
    join_(config(), 'hello', { code: 2, says: /holds no join token: give what `understudy pair init`/ })
  })

  test('missing PostgreSQL programs, a missing user, missing openssl', () => {
    init(
      withPostgres({ binDir: join(home, 'programs') }),
      /programs" does not contain pg_ctl, initdb.*; install PostgreSQL/,
    )
    init(withPostgres({ user: 'nobodyhere' }), /postgres\.user "nobodyhere" does not exist on this host; create it/)
    // A PATH with what a set-up needs but openssl; nft and ip are not needed by the agent at all.
    const tools = join(home, 'input-tools')
    mkdirSync(tools)
    for (const name of ['id'])
      symlinkSync(execFileSync('sh', ['-c', `command -v ${name}`], { encoding: 'utf8' }).trim(), join(tools, name))
    init(config(), /postgres\.tls is missing, and it needs openssl.*; install openssl/, { env: { PATH: tools } })
  })

  test('a folder where nothing can be kept, or where no folder can be made', () => {
    init(
      { ...config(), stateDir: '/proc/understudy' },
      /stateDir "\/proc\/understudy" cannot be used: \/proc lies on a proc/,
    )
    init(
      { ...config(), stateDir: '/dev/shm/understudy/state' },
      /stateDir .* cannot be used: \/dev\/shm lies on a tmpfs/,
    )
    init(withPostgres({ dataDir: '/sys/understudy' }), /postgres\.dataDir .* cannot be used: \/sys lies on a sysfs/)
    init(
      withPostgres({ dataDir: '/dev/shm/understudy' }),
      /postgres\.dataDir .* \/dev\/shm lies on a tmpfs: .* empty after/,
    )
    // Said before keys are made, and for either host: the one that joins would find out only as it copies.
    const notes = join(home, 'foreign', 'notes.txt')
    symlinkSync(join(home, 'input.loop'), join(home, 'input.loop'))
    for (const [dataDir, says] of [
      [join(notes, 'data'), /postgres\.dataDir .* cannot be used: .*notes\.txt is no folder; name a folder/],
      [notes, /postgres\.dataDir .*notes\.txt" cannot be used: it is no folder/],
      [join(home, 'input.loop', 'data'), /postgres\.dataDir .* cannot be used: ELOOP/],
      [join(home, 'n'.repeat(256)), /postgres\.dataDir .* cannot be used: ENAMETOOLONG/],
      [join(home, 'two\nlines'), /postgres\.dataDir .* must hold no newline/],
    ] as const) {
      init(withPostgres({ dataDir }), says)
      join_(withPostgres({ dataDir }), token(), { code: 3, says })
    }
    chmodSync(join(home, 'foreign'), 0o1777)
    init({ ...config(), stateDir: join(home, 'foreign') }, /stateDir .* everybody can write in it \(mode 1777\)/)
    chmodSync(join(home, 'foreign'), 0o755)
    const witness = ['witness', '--listen', '127.0.0.1:7443', '--data-dir']
    refused([...witness, '/proc/understudy'], { code: 1, says: /--data-dir: \/proc lies on a proc: .* Name a folder/ })
    refused([...witness, '/dev/shm/understudy'], { code: 1, says: /--data-dir: \/dev\/shm lies on a tmpfs/ })
    refused([...witness, join(home, 'foreign', 'notes.txt', 'x')], {
      code: 1,
      says: /--data-dir: the folder .*notes\.txt\/x cannot be made \(ENOTDIR.*name one on a local disk/,
    })
  })

  test('a program of the host that a verb needs and that is missing: ip, iscsiadm', () => {
    writeFileSync(join(home, 'input.json'), JSON.stringify(config()))
    const bare = { env: { PATH: join(home, 'input-nothing') } }
    refused(
      ['network', '--config', join(home, 'input.json')],
      { code: 1, says: /ip is not installed or not executable \(Debian: apt-get install iproute2\)/ },
      bare,
    )
    refused(
      ['storage', 'discover', '10.9.0.9', '--config', join(home, 'input.json')],
      { code: 1, says: /iscsiadm is not installed or not executable \(Debian: apt-get install open-iscsi\)/ },
      bare,
    )
  })

  test('a witness at an address that is none, or not here, or with a certificate that is not there', () => {
    const dataDir = join(home, 'witness')
    const witness = (listen: string, ...more: string[]): string[] =>
      ['witness', '--listen', listen, '--data-dir', dataDir].concat(more)
    refused(witness('nonsense'), { code: 1, says: /"nonsense" is not address:port, such as/ })
    refused(witness('203.0.113.9:7443'), {
      code: 1,
      says: /203\.0\.113\.9, port 7443, cannot be listened on \(EADDRNOTAVAIL\): name an address of this machine/,
    })
    refused(witness('127.0.0.1:7443', '--tls-cert', '/none'), {
      code: 1,
      says: /--tls-cert and --tls-key belong together/,
    })
    refused(witness('127.0.0.1:7443', '--tls-cert', '/none', '--tls-key', '/none'), {
      code: 1,
      says: /--tls-cert \/none and --tls-key \/none cannot both be read \(ENOENT.*correct the paths/,
    })
  })

  test('an agent on a host that was never set up', () => {
    writeFileSync(join(home, 'input.json'), JSON.stringify(config()))
    const agent = ['agent', '--config', join(home, 'input.json')]
    const never = understudy(agent)
    assert.notEqual(never.code, 0)
    assert.match(never.stderr, /state.*(does not exist|can't be used)/)
  })
})
