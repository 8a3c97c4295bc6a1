import type { Command } from 'commander'
import { ConfigError } from '../config.ts'
import { loadConfig } from '../host-file.ts'
import { askAgent, defaultConfigPath, type GlobalOptions } from './connection.ts'
import { eraseMeans, eraseOption } from './pair-verbs.ts'
import { jsonOption, print, printAs, seconds } from './reading.ts'
import { type ShownTree, treeState } from './show-tree.ts'

/** The synchronisation partition, as the agent's files worker knows it. */

/** A script that needs the guarantee rather waits than goes on without it. */
const waitLimitS = 60

export function addSyncVerbs(program: Command): void {
  const sync = program.command('sync').description('the directory trees that are kept on both hosts')
  sync
    .command('status', { isDefault: true })
    .description('how far the copies are')
    .option(...jsonOption)
    .addHelpText('after', '\nExample:\n  understudy sync status\n')
    .action(async (options: { json?: boolean }, command: Command) => {
      printAs(options, (await askAgent(command, 'syncStatus')) as SyncReport, showSync)
    })
  sync
    .command('set-up')
    .description('check the trees of the configuration, and make and mount their partitions; run again it goes on')
    .option(eraseOption, eraseMeans)
    .addHelpText(
      'after',
      '\nExample, after `sync` was added to the configuration of both hosts:\n  understudy sync set-up\n',
    )
    .action(setUp)
  sync
    .command('wait')
    .description('return when everything written before is durable on the backup')
    .argument('[tree]', 'all of them unless named')
    .option('--limit <seconds>', 'give up after that', seconds, waitLimitS)
    .addHelpText('after', '\nExample, in a script that must not lose what it wrote:\n  understudy sync wait data\n')
    .action(async (tree: string | undefined, options: { limit: number }, command: Command) => {
      const limitMs = options.limit * 1000
      const args = tree === undefined ? { limitMs } : { limitMs, tree }
      const answer = await askAgent(command, 'syncWait', { args, silenceMs: limitMs + marginMs })
      const { waitedMs } = answer as { waitedMs: number }
      print(`what was written before is durable on the backup (${waitedMs} ms)\n`)
    })
  sync
    .command('scrub')
    .description('compare both copies now; differences are repaired')
    .argument('[tree]', 'all of them unless named')
    .option('--contents', 'also read all files on both hosts and compare what they contain, at the configured rate')
    .addHelpText('after', '\nExample:\n  understudy sync scrub --contents\n  understudy sync status\n')
    .action(async (tree: string | undefined, options: { contents?: boolean }, command: Command) => {
      const what = options.contents === true ? 'contents' : 'metadata'
      await askAgent(command, 'syncScrub', { args: tree === undefined ? { what } : { what, tree } })
    })
}

/**
 * The same checks and steps as `pair init` and `pair join`, for a tree that is added to a pair. Each can be run again:
 * also to mount what a boot left unmounted.
 */
async function setUp(options: { erase?: string }, command: Command): Promise<void> {
  const path = command.optsWithGlobals<GlobalOptions>().config ?? defaultConfigPath
  const config = loadConfig(path)
  if (config.sync === null)
    throw new ConfigError(path, [
      { field: 'sync', value: null, rule: 'names no tree', remedy: 'add one, see install.md' },
    ])
  const { prepareTrees, treeFaults } = await import('../files/set-up-check.ts')
  const how = { part: 'adds', resumed: false, erase: options.erase ?? null, other: [] } as const
  const faults = await treeFaults(config, how)
  if (faults.length > 0) throw new ConfigError('this set-up', faults)
  await prepareTrees(config, line => process.stderr.write(`  ${line}\n`))
  for (const tree of config.sync.trees) print(`${tree.name}  ${tree.path} is ready\n`)
  print('When it is on both hosts: understudy reload, on the backup first\n')
}

/** The agent's own limit answers first. */
const marginMs = 5000

interface SyncReport {
  why: string
  lacks?: string
  trees: (ShownTree & {
    tree: string
    path: string
    contents?: { last: { files: number; differences: number } | null }
    refusal?: string | null
    unwatched?: string | null
    problems?: string[]
    problemCount?: number
    unresolved?: { epoch: number } | null
    comparison?: { last: { files: number; differences: number; manifest: string } | null }
  })[]
}

function showSync({ why, lacks = '', trees }: SyncReport): string {
  const lines = why === '' ? [] : [why]
  for (const tree of trees) {
    lines.push(`${tree.tree}  ${tree.path}  ${treeState(tree)}`)
    for (const reason of [tree.refusal, tree.blocked, tree.unwatched]) if (reason) lines.push(`  ${reason}`)
    for (const problem of tree.problems ?? []) lines.push(`  not replicated: ${problem}`)
    if (tree.unresolved)
      lines.push(
        `  what this host wrote as primary of epoch ${tree.unresolved.epoch} is not compared with the primary’s copy yet`,
      )
    const last = tree.comparison?.last
    if (last)
      lines.push(
        `  last comparison: ${last.files} names, ${last.differences} differences; manifest ${last.manifest.slice(0, 16)}`,
      )
    const read = tree.contents?.last
    if (read) lines.push(`  contents last compared: ${read.files} files, ${read.differences} differences`)
  }
  if (lacks !== '' && trees.length > 0) lines.push(lacks)
  return `${lines.length === 0 ? 'no tree is replicated here' : lines.join('\n')}\n`
}
