import { randomBytes, randomUUID } from 'node:crypto'
import { chmodSync, statSync } from 'node:fs'
import { dirname, resolve } from 'node:path'
import { assert } from '../../shared/assert.ts'
import { newDurable } from '../../shared/protocol/durable.ts'
import { otherNode } from '../../shared/protocol/nodes.ts'
import { type Config, ConfigError, type WitnessConfig } from '../config.ts'
import type { ConfigFault } from '../config-faults.ts'
import { addressOf } from '../drivers/host-addresses.ts'
import { stateWriter } from '../drivers/store-port.ts'
import { exec } from '../exec.ts'
import { heldTrees, prepareTrees, treeFaults } from '../files/set-up-check.ts'
import { existingAbove, makeFolder, whyNoFolder } from '../folders.ts'
import { bootMs } from '../kernel/clock.ts'
import { RouteSocket } from '../kernel/rtnetlink.ts'
import { type HostKey, hostKeyOf, makeHostKeyPem, readHostKey } from '../keys/host-key.ts'
import { readSecret } from '../keys/secret-file.ts'
import { postgresMajor, preflight } from '../preflight.ts'
import { checkLocation, kernelsOwn, notKept } from '../state-file/location.ts'
import { createStateFile, readState } from '../state-file/state-file.ts'
import { probe } from '../vip/probe.ts'
import { admitPair } from '../witness/admission.ts'
import { trustOf } from '../witness/connection.ts'
import { dataDirectoryFaults } from './data-directory.ts'
import { keysOf, readKeyRing } from './key-ring.ts'
import {
  ensureCertificates,
  ensureHostKey,
  ensurePairKey,
  takeHostKeys,
  writeCertificates,
  writePairKey,
} from './keys.ts'
import { readSetup, type Setup, writeSetup } from './setup-file.ts'
import { agreedOf, disagreements, encodeToken, type JoinToken } from './token.ts'

/**
 * Set-up of a host. All checks come before the first change; then each step leaves something durable and is skipped when
 * it is there already, so that an interrupted set-up is simply run again. Members of the register and the base backup
 * are the agents' business: there is no other bootstrap than theirs.
 */
export interface SetUpOptions {
  config: Config
  /** A step in words, as it begins. */
  progress: (line: string) => void
  /** Makes or adopts the cluster; idempotent. */
  prepareDatabase: (config: Config, progress: (line: string) => void) => Promise<void>
  /** A device whose contents somebody has given up by name; null: only empty ones are taken. */
  erase: string | null
}

const closeLimitMs = 2000

export interface BeginOptions {
  /** What a witness of one's own asks of a new pair. */
  enrolmentToken: string | null
  /** For a hosted witness: the keys by which the control plane knows both hosts. */
  enrolled: { own: HostKey; otherKey: string } | null
}

export interface JoinOptions {
  token: JoinToken
  /** Whether an agent runs here that hears the other host: their keys are the same then. */
  hearsOther: () => Promise<boolean>
}

/**
 * This host begins the pair. Answers with the token for the other one; running it again answers with the same, also on the
 * host that joined: whoever of the two is left has another machine join in the other one's place.
 */
export async function beginPair(options: SetUpOptions & BeginOptions): Promise<string> {
  const { config, progress } = options
  const before = readSetup(config.stateDir)
  if (before?.leftAt !== undefined) throw hasLeftIt(config, before)
  if (before?.part === 'joins') return tokenAgain(config, before)
  const major = await check(options, { part: 'begins', before })
  makeStateDir(config.stateDir)
  let setup: Setup = before ?? {
    pair: config.pair,
    node: config.node,
    part: 'begins',
    admissionNonce: config.witness === null ? null : newNonce(),
    witnessInc: null,
    otherHostKeyPem: makeHostKeyPem(),
  }
  if (before === null) await writeSetup(config.stateDir, setup)
  progress('keys of the pair and of both hosts')
  await ensurePairKey(config.pairKeyFile)
  await ensureHostKey(config.hostKeyFile)
  if (config.postgres.tls === null) await ensureCertificates(config)
  if (config.witness !== null && setup.witnessInc === null) {
    // Named only since the set-up began; noted before the witness is asked, so that asking again is the same request.
    if (setup.admissionNonce === null) {
      setup = { ...setup, admissionNonce: newNonce() }
      await writeSetup(config.stateDir, setup)
    }
    progress(`admission at the witness ${config.witness.url}`)
    setup = { ...setup, witnessInc: await admit(config, setup, options) }
    await writeSetup(config.stateDir, setup)
  }
  await prepareTrees(config, progress)
  // The state is the last thing that is made: where it is, an agent may be running on this database.
  if (!hasState(config)) {
    progress(config.postgres.mode === 'create' ? 'a new PostgreSQL cluster' : 'the PostgreSQL cluster is adopted')
    await options.prepareDatabase(config, progress)
    await makeState(config, progress)
  }
  return tokenOf(config, setup, major)
}

const newNonce = (): string => randomBytes(24).toString('base64url')

async function tokenOf(config: Config, setup: Setup, postgresMajor: number): Promise<string> {
  const { witness } = config
  const tls = config.postgres.tls === null ? await ensureCertificates(config) : null
  const token: JoinToken = {
    v: 1,
    pair: config.pair,
    node: otherNode(config.node),
    pairKey: await ensurePairKey(config.pairKeyFile),
    hostKeyPem: setup.otherHostKeyPem,
    witness: witness === null ? null : { ...ofToken(witness), inc: witness.inc ?? setup.witnessInc ?? '' },
    tls: tls === null ? null : { authorityPem: tls.authority.certificatePem, ...tls.other },
    inviter: { hostKeyPem: readText(config.hostKeyFile), authorityKeyPem: tls?.authority.keyPem ?? null },
    agreed: agreedOf(config, postgresMajor, await heldTrees(config)),
  }
  return encodeToken(token)
}

/** Nothing is checked but whose place this is: the host runs, and nothing of it is changed. @throws with a sentence */
async function tokenAgain(config: Config, setup: Setup): Promise<string> {
  refuseOther(config, setup, 'joins')
  if (!hasState(config)) throw notMember(config)
  if (setup.otherHostKeyPem === '')
    throw new Error(
      `host ${config.node} joined pair ${config.pair} by a token that did not let it have others join: copy setup.json, the keys and tls of stateDir from a backup of the other host, or set the pair up anew with postgres.mode adopt`,
    )
  return tokenOf(config, setup, await postgresMajor(config))
}

const notMember = ({ node, pair }: Config): Error =>
  new Error(`host ${node} is no member of pair ${pair}: it has to join first, and others after it`)

/** With its keys and promises it could only go back to that one. */
const hasLeftIt = ({ stateDir, pairKeyFile, hostKeyFile, postgres }: Config, { pair, leftAt }: Setup): Error =>
  new Error(
    `this host left pair ${pair} at ${leftAt}: \`understudy pair join\` makes it a member of that one again. To begin another pair, move ${pairKeyFile}, ${hostKeyFile} and what else is in ${stateDir} aside, all but its folder "control", by which a host is enrolled; postgres.mode "adopt" keeps the data in ${postgres.dataDir}`,
  )

const readText = (path: string): string => readSecret(path)?.toString() ?? ''

/** This host joins a pair that another one began, or that went on without it since it left: with its store and data then. */
export async function joinPair(options: SetUpOptions & JoinOptions): Promise<void> {
  const { config, token, progress } = options
  const before = readSetup(config.stateDir)
  if (before !== null && (await hasJoined(options, before)))
    return progress('it has joined already; nothing is changed')
  await check(options, { part: 'joins', before, token })
  makeStateDir(config.stateDir)
  progress('keys from the token')
  await takeToken(config, token)
  await prepareTrees(config, progress)
  await makeState(config, progress)
}

/**
 * What the token brings. The pair's key comes last, by which a member is told from a host that was shut out (hasJoined): a join
 * that was cut off is done again.
 */
export async function takeToken(config: Config, token: JoinToken): Promise<void> {
  await takeHostKeys(config.hostKeyFile, token.hostKeyPem)
  const { inviter } = token
  if (token.tls !== null && config.postgres.tls === null)
    await writeCertificates(config, { ...token.tls, authorityKeyPem: inviter?.authorityKeyPem ?? null })
  await writeSetup(config.stateDir, {
    pair: config.pair,
    node: config.node,
    part: 'joins',
    admissionNonce: null,
    witnessInc: token.witness?.inc ?? null,
    otherHostKeyPem: inviter?.hostKeyPem ?? '',
  })
  await writePairKey(config.pairKeyFile, token.pairKey)
}

/**
 * A member has what the token brings, or what took its place since: another key, another certificate. Only one that the
 * other host has shut out, and that has nothing in common with it any more, takes a newer token. @throws with a sentence
 */
async function hasJoined({ config, token, hearsOther }: SetUpOptions & JoinOptions, before: Setup): Promise<boolean> {
  if (before.leftAt !== undefined || !hasState(config)) return false
  refuseOther(config, before, 'joins')
  if (keysOf(readKeyRing(config.pairKeyFile)).some(key => key.toString('base64url') === token.pairKey)) return true
  if (!(await hearsOther())) return false
  throw new Error(
    `host ${config.node} is a member of pair ${config.pair} and hears the other host by the pair’s key, and this token has an older one: nothing was changed; to have it join anew, \`understudy pair leave\` comes first`,
  )
}

/** This host left its pair and joins it again, with the keys, the store and the data that it has. */
export async function rejoinPair(options: SetUpOptions): Promise<void> {
  const { config } = options
  const before = readSetup(config.stateDir)
  assert(before?.leftAt !== undefined, 'only a host that left joins without a token')
  await check(options, { part: before.part, before })
  const { leftAt: _, ...setup } = before
  await writeSetup(config.stateDir, setup)
}

/** PostgreSQL's user passes through to its own folder in it; every other file is closed to others by its own mode. */
function makeStateDir(path: string): void {
  makeFolder(path, 0o711)
  // One that was there may be more than ours: it is opened for passing through, and no more of it is changed.
  chmodSync(path, (statSync(path).mode & 0o7777) | 0o711)
}

/** Every reason why the set-up can't be done, before anything is changed. Answers with PostgreSQL's major version. */
async function check(
  { config, erase }: SetUpOptions,
  { part, before, token }: { part: Setup['part']; before: Setup | null; token?: JoinToken },
): Promise<number> {
  const misplaced = folderFaults(config)
  if (misplaced.length > 0) throw new ConfigError('this set-up', misplaced)
  await preflight(config)
  hasState(config)
  const major = await postgresMajor(config)
  if (before !== null) refuseOther(config, before, part)
  const { dataDir, mode, configFile, hbaFile } = config.postgres
  const faults = [
    ...(token === undefined ? [] : disagreements(config, token, major)),
    ...dataDirectoryFaults({ dataDir, mode, part, major, configFile, hbaFile, resumed: before !== null }),
    ...(await treeFaults(config, { part, resumed: before !== null, erase, other: token?.agreed.sync?.trees ?? [] })),
    ...(before === null && part === 'begins' ? await takenAddresses(config) : []),
    ...(part === 'begins' && config.postgres.tls === null ? await certificateMaker() : []),
  ]
  if (faults.length > 0) throw new ConfigError('this set-up', faults)
  return major
}

function refuseOther(config: Config, before: Setup, part: Setup['part']): void {
  const partFits = before.part === part || before.leftAt !== undefined
  if (before.pair === config.pair && before.node === config.node && partFits) return
  const rule = `belongs to host ${before.node} of pair ${before.pair}, which ${before.part} its pair`
  const remedy =
    'name another folder, or move what is in this one aside once that host is off for good, all but "control", by which it is enrolled'
  throw new ConfigError('this set-up', [{ field: 'stateDir', value: config.stateDir, rule, remedy }])
}

/** Said before anything is made in the others. */
function folderFaults({ stateDir, socket, postgres }: Config): ConfigFault[] {
  const places: [
    field: string,
    value: string,
    folder: string,
    why: (existing: string, folder: string) => string | undefined,
  ][] = [
    ['stateDir', stateDir, stateDir, whyNoState],
    ['socket', socket, dirname(socket), kernelsOwn],
    ['postgres.socketDir', postgres.socketDir, postgres.socketDir, kernelsOwn],
    ['postgres.dataDir', postgres.dataDir, postgres.dataDir, notKept],
  ]
  return places.flatMap(([field, value, folder, whyNot]) => {
    const why = whyNoFolder(folder) ?? whyNot(existingAbove(folder), folder)
    if (why === undefined) return []
    return [{ field, value, rule: `cannot be used: ${why}`, remedy: 'name a folder on a local disk' }]
  })
}

function whyNoState(existing: string, stateDir: string): string | undefined {
  const where = checkLocation(existing)
  if (!where.ok) return where.why
  const { mode } = statSync(existing)
  if (existing !== resolve(stateDir) || (mode & 0o002) === 0) return undefined
  return `everybody can write in it (mode ${(mode & 0o7777).toString(8)}), and with that replace its keys`
}

/** Only set-up needs it; said before anything is changed, not in the middle. */
async function certificateMaker(): Promise<ConfigFault[]> {
  const answer = await exec(['openssl', 'version'], { limitMs: opensslLimitMs })
  if (answer.ok) return []
  const rule = 'is missing, and it needs openssl to make the pair’s certificates'
  return [
    { field: 'postgres.tls', value: undefined, rule, remedy: 'install openssl, or name certificates of your own' },
  ]
}
const opensslLimitMs = 5000

async function takenAddresses(config: Config) {
  const route = new RouteSocket()
  const answers = await Promise.all(
    config.vips.map(async (vip, index) => {
      const mac = route.link(vip.interface)?.mac
      const result =
        mac === undefined ? null : await probe({ iface: vip.interface, mac, address: addressOf(vip.address) })
      if (result?.kind !== 'taken') return []
      const rule = `is in use by ${result.mac} on ${vip.interface}`
      return [
        {
          field: `vips[${index}].address`,
          value: vip.address,
          rule,
          remedy: 'free it there, or choose another address',
        },
      ]
    }),
  )
  route.close()
  return answers.flat()
}

const ofToken = ({ url, fingerprint, hosted }: WitnessConfig) =>
  hosted ? { url, fingerprint, hosted } : { url, fingerprint }

async function admit(config: Config, setup: Setup, { enrolmentToken, enrolled }: BeginOptions): Promise<string> {
  const { witness, pair, node } = config
  if (witness === null || setup.admissionNonce === null) throw new Error('no witness is configured')
  const { own, otherKey } = witness.hosted ? asEnrolled(enrolled) : await ofHosts(config, setup)
  const keys = node === 'a' ? { a: own.publicKey, b: otherKey } : { a: otherKey, b: own.publicKey }
  const answer = await admitPair(
    { address: { url: witness.url, trust: trustOf(witness) }, pair, host: node, signingKey: own.signingKey },
    { request: { nonce: setup.admissionNonce, replaces: null, keys }, enrolmentToken },
  )
  if (answer.ok) return answer.reply.inc
  throw new Error(`the witness ${witness.url} does not admit pair ${pair}: ${answer.why}`)
}

function asEnrolled(enrolled: BeginOptions['enrolled']): NonNullable<BeginOptions['enrolled']> {
  if (enrolled !== null) return enrolled
  throw new Error(
    'a hosted witness knows the hosts by their enrolment: set the pair up through the control plane, or name a witness of your own',
  )
}

async function ofHosts(config: Config, setup: Setup): Promise<NonNullable<BeginOptions['enrolled']>> {
  const other = await hostKeyOf(setup.otherHostKeyPem)
  return { own: await readHostKey(config.hostKeyFile), otherKey: other.publicKey }
}

/** @throws with a sentence where it is damaged: it is never made anew. */
function hasState({ stateDir }: Config): boolean {
  const read = readState(stateDir)
  if (!read.ok && read.code !== 'missing') throw new Error(read.why)
  return read.ok
}

/** The store of this host, with an incarnation of its own. Never made anew where one is. */
async function makeState(config: Config, progress: (line: string) => void): Promise<void> {
  if (hasState(config)) return
  progress('the durable state of this host')
  const options = { folder: config.stateDir, now: bootMs, onPersisted: () => {}, onFailed: () => {}, ...stateWriter() }
  const made = await createStateFile(options, newDurable(randomUUID()))
  if (!made.ok) throw new Error(made.why)
  await made.file.close(closeLimitMs)
}
