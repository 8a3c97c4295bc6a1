import type { Command } from 'commander'
import { loadConfig } from '../host-file.ts'
import type { SetUpOptions } from '../pair/set-up.ts'
import { hasLeft } from '../pair/setup-file.ts'
import { decodeToken, type JoinToken, tokenBytesMax } from '../pair/token.ts'
import type { StatusReport } from '../report/status-report.ts'
import { confirmByName, done, long } from './act-verbs.ts'
import { askAgent, defaultConfigPath, type GlobalOptions, socketPath } from './connection.ts'
import { Exit } from './exit-codes.ts'
import { readTextArgument } from './text-file.ts'

/** Set-up and the way out. The parts that touch the host are loaded only here. */
export function addPairVerbs(program: Command): void {
  const pair = program.command('pair').description('make a pair of two hosts, or leave it')
  pair
    .command('init')
    .description('begin a pair on this host; prints the token for the other one. Run again it goes on where it stopped')
    .option('--token-file <path>', 'write the token to this file (mode 0600) instead of printing it')
    .option(eraseOption, eraseMeans)
    .option('--enrolment-token-file <path>', 'what the witness asks of a new pair, as `understudy witness` keeps it')
    .addHelpText(
      'after',
      '\nExample:\n  understudy pair init --config /etc/understudy/agent.json --token-file /root/join.token\n',
    )
    .action(init)
  pair
    .command('join')
    .description('make this host the second one of a pair')
    .option(
      '--token-file <path>',
      'what `pair init` printed; "-" reads it from standard input. Needless on a host that left this pair',
    )
    .option(eraseOption, eraseMeans)
    .addHelpText('after', '\nExample:\n  ssh host-a understudy pair init | understudy pair join --token-file -\n')
    .action(join)
  pair
    .command('leave')
    .description(
      'take this host out of the pair: a primary hands over first; the other host goes on alone. `pair join` takes it back in',
    )
    .addHelpText('after', '\nExample:\n  understudy pair leave && systemctl disable --now understudy\n')
    .action(async (_options: object, command: Command) => {
      done(await long(command, 'depart', {}))
      say('Now stop the agent here, which takes no part any more: systemctl disable --now understudy')
      say('`understudy pair join` makes this host a member again, with the data it has.')
    })
  pair
    .command('alone')
    .description('the other host is gone for good: go on without it, with keys that it does not have')
    .option('--yes', 'confirm that it is off for good, where nobody can be asked')
    .addHelpText('after', '\nExample, after the other host burnt down:\n  understudy pair alone\n')
    .action(alone)
}

async function alone(options: { yes?: boolean }, command: Command): Promise<void> {
  const config = loadConfig(configOf(command))
  const status = (await askAgent(command, 'status')) as StatusReport
  const { pair, node, peer } = status
  say(`This shuts host ${peer.node} out: nothing that it knows of pair ${pair} will open anything on ${node} any more.`)
  say('To have another machine in its place, now or later: `understudy pair init` here prints the token for it.')
  if (!options.yes) await confirmByName(pair, 'that the other host is off for good')
  const [{ goOnAlone }, { shutOut }] = await Promise.all([
    import('../control/core-over-socket.ts'),
    import('../pair/shut-out.ts'),
  ])
  const outcome = await goOnAlone(socketPath(command.optsWithGlobals<GlobalOptions>()), status)
  if (outcome.phase !== 'done') throw new Exit(outcome.phase, outcome.message)
  const left = await shutOut(config)
  await askAgent(command, 'restart', { args: { why: `${peer.node} is shut out` } })
  done({ why: outcome.message })
  if (left !== '')
    throw new Exit('failed', `its key still counts at a witness: ${left}. Give \`understudy pair alone\` again`)
}

/** Only by its name, and on this host: what is on a device is not given up by a configuration that was copied. */
export const eraseOption = '--erase <device>'
export const eraseMeans = 'make a tree’s partition on this device although it is not empty: ALL ON IT IS LOST'

const say = (line: string): void => {
  process.stderr.write(`${line}\n`)
}

const configOf = (command: Command): string => command.optsWithGlobals<GlobalOptions>().config ?? defaultConfigPath

async function parts(path: string, { erase }: { erase?: string }): Promise<SetUpOptions> {
  const config = loadConfig(path)
  const { prepareDatabase } = await import('../drivers/database-port.ts')
  return { config, prepareDatabase, progress: line => say(`  ${line}`), erase: erase ?? null }
}

async function init(
  options: { tokenFile?: string; enrolmentTokenFile?: string; erase?: string },
  command: Command,
): Promise<void> {
  const path = configOf(command)
  const { beginPair } = await import('../pair/set-up.ts')
  const enrolmentToken =
    options.enrolmentTokenFile === undefined ? null : readTextArgument(options.enrolmentTokenFile, tokenBytesMax).trim()
  const token = await beginPair({ ...(await parts(path, options)), enrolmentToken, enrolled: null })
  if (options.tokenFile === undefined) process.stdout.write(`${token}\n`)
  else {
    const { writeWhole } = await import('../pair/setup-file.ts')
    await writeWhole(options.tokenFile, `${token}\n`)
  }
  say('this host is set up. Now:')
  say(`  here:            understudy agent --config ${path}   (or: systemctl enable --now understudy)`)
  say('  on the other host: understudy pair join --token-file <the token>, then its agent')
  say('The token is a secret: whoever has it can join. Delete it afterwards.')
}

async function join(options: { tokenFile?: string; erase?: string }, command: Command): Promise<void> {
  const path = configOf(command)
  const { joinPair, rejoinPair } = await import('../pair/set-up.ts')
  const host = await parts(path, options)
  const hearsOther = async (): Promise<boolean> => {
    const status = (await askAgent(command, 'status').catch(() => null)) as StatusReport | null
    return status !== null && (await import('../control/settling.ts')).isHeard(status)
  }
  if (options.tokenFile !== undefined) await joinPair({ ...host, token: readToken(options.tokenFile), hearsOther })
  else if (hasLeft(host.config)) await rejoinPair(host)
  else {
    throw new Exit(
      'usage',
      `option '--token-file <path>' is missing, and this host is none that left its pair: give the token that \`understudy pair init\` prints on the other host`,
    )
  }
  say('this host is set up. Its agent copies the database from the other host and follows it:')
  say(`  understudy agent --config ${path}   (or: systemctl enable --now understudy)`)
  say('  understudy events --follow')
}

function readToken(path: string): JoinToken {
  const token = decodeToken(readTextArgument(path, tokenBytesMax))
  if (token !== null) return token
  const from = path === '-' ? 'standard input' : path
  throw new Exit(
    'usage',
    `${from} holds no join token: give what \`understudy pair init\` of this version printed on the other host`,
  )
}
