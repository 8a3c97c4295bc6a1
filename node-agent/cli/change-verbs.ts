import { randomUUID } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { type Command, Option } from 'commander'
import { profileNames } from '../../shared/protocol/timing.ts'
import { type Config, parseConfig, type WitnessPlace } from '../config.ts'
import { loadConfig } from '../host-file.ts'
import type { KeyAndCertificate } from '../keys/certificates.ts'
import type { OwnSettings } from '../peer-news.ts'
import type { StatusReport } from '../report/status-report.ts'
import { askAgent } from './connection.ts'
import { Exit } from './exit-codes.ts'
import { beginAnew, changeField, ownConfig, pathOf } from './live-config.ts'
import { readTextArgument } from './text-file.ts'

/** What of a pair both hosts have to agree on, changed while it serves: on the backup first, then on the primary. */
export function addChangeVerbs(program: Command): void {
  const change = program
    .command('change')
    .description(
      'change what both hosts have to agree on, while the pair serves: on the backup first, then the primary',
    )
  change
    .command('profile')
    .description('other times for lease and heartbeats; unprotected from the first host’s change until the second’s')
    .argument('<name>', profileNames.join(', '))
    .addHelpText('after', '\nExample:\n  understudy change profile conservative\n')
    .action((name: string, _options: object, command: Command) => profile(command, name))
  change
    .command('witness')
    .description('another witness, which admits this pair first; or the present one anew, after its store was lost')
    .option('--url <url>', 'of the witness, https')
    .option('--fingerprint <hex>', 'SHA-256 of its certificate, as `understudy witness` prints it')
    .option('--anew', 'the present one gives this pair a new incarnation, in place of one that has no vote any more')
    .option('--none', 'the pair goes on without one: no automatic takeover')
    .option('--enrolment-token-file <path>', 'what a witness asks that does not know this pair yet')
    .addHelpText(
      'after',
      '\nExample:\n  understudy change witness --url https://witness-2.example:7443 --fingerprint 64-HEX-DIGITS --enrolment-token-file /root/witness.token\n',
    )
    .action(witness)
  change
    .command('certificate')
    .description(
      'a new certificate for the streaming of this host, from the pair’s authority; in any order on both hosts',
    )
    .addHelpText('after', '\nExample:\n  understudy change certificate\n')
    .action(certificate)
  change
    .command('host-key')
    .description('a new key by which a witness of your own knows this host; in any order on both hosts')
    .addHelpText('after', '\nExample:\n  understudy change host-key\n')
    .action(hostKey)
  change
    .command('alternate')
    .description('the witness that takes the first one’s place when it was away for both hosts for long')
    .option('--url <url>', 'of the alternate, https')
    .option('--fingerprint <hex>', 'SHA-256 of its certificate')
    .option('--none', 'no alternate any more')
    .addOption(new Option('--after <seconds>', 'so long the first one has to be away').argParser(Number))
    .option('--enrolment-token-file <path>', 'what a witness asks that does not know this pair yet')
    .addHelpText(
      'after',
      '\nExample:\n  understudy change alternate --url https://witness-2.example:7443 --fingerprint 64-HEX-DIGITS --enrolment-token-file /root/witness.token\n',
    )
    .action(alternate)
}

/** For the one in use to be replaced while both are valid, nothing has to be agreed on first. */
async function certificate(_options: object, command: Command): Promise<void> {
  const config = loadConfig(pathOf(command))
  if (config.postgres.tls !== null)
    throw new Exit(
      'refused',
      `postgres.tls names certificates of your own (${config.postgres.tls.certFile}): replace the files and run \`understudy reload\``,
    )
  const [{ renewedCertificate, tlsPaths }, { writeKeyAndCertificate }] = await Promise.all([
    import('../pair/keys.ts'),
    import('../keys/certificates.ts'),
  ])
  const fromOther = async () =>
    (await askAgent(command, 'newCertificate', { silenceMs: certificateLimitMs })) as KeyAndCertificate
  const made = await renewedCertificate(config, fromOther).catch((error: unknown) => {
    if (error instanceof Exit) throw error
    throw new Exit('refused', `${error instanceof Error ? error.message : String(error)}; nothing was changed`)
  })
  const paths = tlsPaths(config)
  const before = {
    keyPem: readFileSync(paths.key, 'utf8'),
    certificatePem: readFileSync(paths.certificate, 'utf8'),
  }
  await writeKeyAndCertificate(paths, made)
  await beginAnew(command, config, () => writeKeyAndCertificate(paths, before))
}
const certificateLimitMs = 30_000

/** It is the agent's, which votes by it: it makes the key and begins to use it. */
async function hostKey(_options: object, command: Command): Promise<void> {
  const { why } = (await askAgent(command, 'changeHostKey', { silenceMs: hostKeyLimitMs })) as { why: string }
  process.stdout.write(`${why}\n`)
}
/** Two witnesses, each asked, told, and told back where the other one did not take it. */
const hostKeyLimitMs = 120_000

async function profile(command: Command, name: string): Promise<void> {
  ownConfig(command, { field: 'profile', words: 'lease and heartbeats' })
  const known = profileNames.find(one => one === name)
  if (known === undefined)
    throw new Exit('usage', `profile ${JSON.stringify(name)} must be one of ${profileNames.join(', ')}`)
  await changeField(command, 'profile', known)
}

interface WitnessOptions {
  url?: string
  fingerprint?: string
  anew?: boolean
  none?: boolean
  after?: number
  enrolmentTokenFile?: string
}
const tokenBytesMax = 4096

async function witness(options: WitnessOptions, command: Command): Promise<void> {
  const config = ownWitness(command)
  const ways = [options.url !== undefined, options.anew === true, options.none === true].filter(one => one).length
  if (ways !== 1) throw new Exit('usage', 'give one of --url (with --fingerprint), --anew and --none')
  if (options.none) return changeField(command, 'witness', null)
  const { placeOf } = await import('../witness/places.ts')
  const present = config.witness
  if (options.anew && present === null) throw new Exit('usage', '--anew: this pair has no witness that could admit it')
  const first = options.anew && present !== null ? placeOf(present) : namedPlace(command, config, options)
  const anew = options.anew ? randomUUID() : null
  const kept = present?.alternate ?? null
  await admitAndChange(command, config, { first, alternate: kept && placeOf(kept), options, anew })
}

async function alternate(options: WitnessOptions, command: Command): Promise<void> {
  const config = ownWitness(command)
  const { placeOf } = await import('../witness/places.ts')
  if (config.witness === null) throw new Exit('usage', 'this pair has no witness that an alternate could stand in for')
  if ((options.url !== undefined) === (options.none === true))
    throw new Exit('usage', 'give one of --url (with --fingerprint) and --none')
  const other = options.none ? null : namedPlace(command, config, options)
  await admitAndChange(command, config, { first: placeOf(config.witness), alternate: other, options, anew: null })
}

function ownWitness(command: Command): Config {
  const config = ownConfig(command, { field: 'witness', words: 'witness and alternate' })
  if (config.witness?.hosted)
    throw new Exit('refused', 'the witness of this pair is the control plane: change the arbitration there')
  return config
}

/** Checked by the rules of the configuration, with their words. */
function namedPlace(command: Command, config: Config, { url, fingerprint }: WitnessOptions): WitnessPlace {
  const named = { url: url ?? '', fingerprint: fingerprint ?? '' }
  const checked = parseConfig(JSON.stringify({ ...config, witness: named }), pathOf(command)).witness
  return { url: checked!.url, fingerprint: checked!.fingerprint, hosted: false }
}

async function admitAndChange(
  command: Command,
  config: Config,
  part: {
    first: WitnessPlace
    alternate: WitnessPlace | null
    options: WitnessOptions
    anew: string | null
  },
): Promise<void> {
  const { first, options, anew } = part
  const { admittedOf, admittedWitnesses, forgetAdmission, placeOf } = await import('../witness/places.ts')
  const { said, why } = (await askAgent(command, 'peerSettings')) as { said: OwnSettings | null; why: string }
  const { witness: stands, peer } = (await askAgent(command, 'status')) as StatusReport
  if (said === null)
    throw new Exit('refused', `${peer.node} has its part in a change of the witness, and does not answer: ${why}`)
  const had = admittedOf(config)
  const wanted = { first, alternate: part.alternate, awayS: options.after ?? config.witness?.awayS ?? awayS, anew }
  const next = await admittedWitnesses(wanted, {
    config,
    inUse: stands?.alternate?.isMember ? 'alternate' : 'first',
    // Of a host that has changed already; what both have is not news.
    taken: said.witnesses.filter(one => !had.some(own => own.inc === one.inc)),
    otherKey: () => said.hostKey,
    enrolmentToken: () =>
      options.enrolmentTokenFile === undefined
        ? null
        : readTextArgument(options.enrolmentTokenFile, tokenBytesMax).trim(),
  }).catch((error: unknown) => {
    throw new Exit('refused', `${error instanceof Error ? error.message : String(error)}; nothing was changed`)
  })
  // The register may have the new one still as this host goes back: it is asked until the pair has let it go.
  const { inc } = next
  const back =
    config.witness === null || inc === null ? undefined : { ...config.witness, former: { ...placeOf(next), inc } }
  await changeField(command, 'witness', next, back)
  await forgetAdmission(loadConfig(pathOf(command)).stateDir)
}
/** As the configuration has it where nothing is said. */
const awayS = 600
