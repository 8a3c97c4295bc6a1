import { existsSync } from 'node:fs'
import type { Command } from 'commander'
import { type Bundle, evidenceDirOf, exportEvidence, listEvidence, readEvidence } from '../evidence-store.ts'
import { loadConfig } from '../host-file.ts'
import type { StatusReport } from '../report/status-report.ts'
import { AgentUnreachable } from '../socket/client.ts'
import { confirmByName, done, long } from './act-verbs.ts'
import { askAgent, defaultConfigPath, type GlobalOptions } from './connection.ts'
import { Exit } from './exit-codes.ts'
import { jsonOption, printAs } from './reading.ts'

/** What a diverged old primary had. Reading works without an agent: the files are all there is to it. */
export function addEvidenceVerbs(program: Command): void {
  const evidence = program
    .command('evidence')
    .description('what an old primary had and the new one has not: kept before its log is rewound or replaced')
  evidence
    .command('list')
    .description('the bundles on this host')
    .option(...jsonOption)
    .addHelpText('after', '\nExample:\n  understudy evidence list\n')
    .action(async (options: { json?: boolean }, command: Command) => {
      const bundles = await listEvidence(await folderOf(command))
      printAs(options, bundles, list => list.map(showLine).join('') || 'no evidence: nothing diverged on this host\n')
    })
  evidence
    .command('show')
    .description('positions, transactions and tables of one bundle')
    .argument('<id>', 'as `evidence list` prints it')
    .option(...jsonOption)
    .addHelpText('after', '\nExample:\n  understudy evidence show 2026-11-26T03-00-01-123Z-timeline-4\n')
    .action(async (id: string, options: { json?: boolean }, command: Command) => {
      printAs(options, await mustRead(await folderOf(command), id), showBundle)
    })
  evidence
    .command('export')
    .description('copy a bundle, log segments included, into a new folder')
    .argument('<id>', 'as `evidence list` prints it')
    .requiredOption('--to <folder>', 'must not exist yet')
    .addHelpText(
      'after',
      '\nExample, to read it with pg_waldump elsewhere:\n  understudy evidence export 2026-11-26T03-00-01-123Z-timeline-4 --to /mnt/usb/evidence\n',
    )
    .action(async (id: string, options: { to: string }, command: Command) => {
      const folder = await folderOf(command)
      await mustRead(folder, id)
      if (existsSync(options.to))
        throw new Exit('usage', `${options.to} exists already: name a new folder; nothing was changed`)
      const files = await exportEvidence(folder, id, options.to)
      print(`${files} files were copied to ${options.to}\n`)
    })
  evidence
    .command('collect')
    .description('look now at what the stopped database here has and the primary has not; changes nothing else')
    .addHelpText('after', '\nExample, after a forced takeover on the other host:\n  understudy evidence collect\n')
    .action(async (_options: object, command: Command) => done(await long(command, 'collectEvidence', {})))
  evidence
    .command('give-up')
    .description('permit that the data here is rewound or replaced, so that this host follows the primary again')
    .option('--yes', 'do not ask')
    .addHelpText(
      'after',
      '\nExample, after a forced takeover on the other host:\n  understudy evidence collect && understudy evidence give-up\n',
    )
    .action(giveUp)
}

const print = (text: string): void => {
  process.stdout.write(text)
}

/** What the agent says, or, when it does not answer, what the configuration says. */
async function folderOf(command: Command): Promise<string> {
  const { config } = command.optsWithGlobals<GlobalOptions>()
  try {
    return ((await askAgent(command, 'evidenceFolder')) as { folder: string }).folder
  } catch (error) {
    const path = config ?? defaultConfigPath
    if (!(error instanceof AgentUnreachable) || !existsSync(path)) throw error
    return evidenceDirOf(loadConfig(path).stateDir)
  }
}

async function mustRead(folder: string, id: string): Promise<Bundle> {
  const bundle = await readEvidence(folder, id)
  if (bundle !== null) return bundle
  throw new Exit(
    'usage',
    `there is no bundle ${JSON.stringify(id)} in ${folder}: \`understudy evidence list\` names them`,
  )
}

async function giveUp(options: { yes?: boolean }, command: Command): Promise<void> {
  const status = (await askAgent(command, 'status')) as StatusReport
  process.stderr.write(
    [
      `Host ${status.node} of pair ${status.pair} has data that the primary of gen ${status.gen} has not.`,
      '  With this it is rewound to the primary, or replaced by a copy of it. A bundle of what is lost is kept:',
      '  `understudy evidence collect` makes it now, `understudy evidence list` shows it.',
      '',
    ].join('\n'),
  )
  if (!options.yes) await confirmByName(status.pair, 'that this data may be given up')
  done(await askAgent(command, 'giveUp', { args: { gen: status.gen } }))
}

const size = (bytes: number): string =>
  bytes < 2 ** 20 ? `${Math.ceil(bytes / 1024)} KiB` : `${(bytes / 2 ** 20).toFixed(1)} MiB`

function showLine({ evidence, bytes, exported }: Bundle): string {
  const commits = evidence.transactions.length
  const what = commits === 0 ? 'no commit: nothing that a client was told is lost' : `${commits} commits`
  return `${evidence.id}  ${size(evidence.tailBytes)} of log, ${what}, takes ${size(bytes)}${exported ? ', exported' : ''}\n`
}

/** More lines scroll away; --json has all of them. */
const transactionsShown = 20

function showBundle({ evidence, bytes, exported }: Bundle): string {
  const { fork, end, transactions, changes, complete } = evidence
  const rest = transactions.length - transactionsShown
  return [
    `evidence ${evidence.id}, made ${evidence.madeAt}${exported ? ', exported' : ''}`,
    `log of timeline ${fork.timeline} from ${fork.lsn}, where the primary left it, to ${end.lsn}: ${size(evidence.tailBytes)}`,
    `${evidence.segments.length} log segments are kept, ${size(bytes)}${complete ? '' : '; the tail was longer, its beginning is not kept'}`,
    '',
    transactions.length === 0
      ? 'No transaction was committed in it: nothing that a client was told is lost.'
      : `${transactions.length} committed transactions:`,
    ...transactions.slice(0, transactionsShown).map(one => `  ${one.xid}  ${one.committedAt}`),
    ...(rest > 0 ? [`  and ${rest} more; --json prints all`] : []),
    ...(changes.length === 0 ? [] : ['', 'Rows written, by table (tablespace/database/file):']),
    ...changes.map(
      one =>
        `  ${one.name === '' ? 'name unknown' : one.name} (${one.relation}): ${one.inserts} inserted, ${one.updates} updated, ${one.deletes} deleted`,
    ),
    '',
  ].join('\n')
}
