/** `npm run lab -- up|down|status|info|fault …|heal [--name N]`: the lab by hand. */

import { Command } from 'commander'
import { ensureDebianPackages, LAB_PACKAGES, unsuitable } from '../dev/debian-packages.ts'
import { FAULT_HELP, type FaultOptions, parseFault } from './fault-verbs.ts'
import { heal, inject } from './faults.ts'
import { DEFAULT_NAME, down, info, showStatus, status, up } from './lab.ts'
import { PROFILES, type Profile } from './product.ts'

/** One small disk holds a few segments of the log and little more; ext4 needs some room of its own. */
const DISK_RANGE_MIB = { least: 128, most: 65_536 }

const say = (line: string): void => {
  process.stdout.write(`${line}\n`)
}

function profileOf(word: string): Profile {
  const found = PROFILES.find(profile => profile === word)
  if (found === undefined) throw new Error(`"${word}" is no profile: use one of ${PROFILES.join(', ')}.`)
  return found
}

function diskOf(word: string): number {
  const mib = Number(word)
  const { least, most } = DISK_RANGE_MIB
  if (mib === 0 || (Number.isInteger(mib) && mib >= least && mib <= most)) return mib
  throw new Error(`--disk-mib is "${word}" and must be 0 or a whole number from ${least} to ${most}.`)
}

function commandLine(): Command {
  const program = new Command('npm run lab --').description('Two hosts, a witness and a client on this machine.')
  const verb = (name: string, description: string): Command =>
    program.command(name).description(description).option('--name <name>', 'which lab', DEFAULT_NAME)

  verb('up', 'make the machines and form the pair')
    .option('--profile <profile>', PROFILES.join(', '), 'default')
    .option('--disk-mib <mib>', 'a disk of this size for each host, so that it can be filled', '0')
    .action(async (options: { name: string; profile: string; diskMib: string }) => {
      const chosen = { name: options.name, profile: profileOf(options.profile), diskMib: diskOf(options.diskMib) }
      await ensureDebianPackages(LAB_PACKAGES, { why: 'the lab', say })
      await up({ ...chosen, say })
      say(`ready: npm run lab -- status --name ${options.name}`)
    })
  verb('down', 'remove everything, also after a crash').action((options: { name: string }) => down(options.name))
  verb('status', 'what both hosts say, and which faults there are')
    .option('--json', 'as one JSON object')
    .action(async (options: { name: string; json?: boolean }) => {
      const seen = await status(options.name)
      say(options.json ? JSON.stringify(seen) : showStatus(seen).join('\n'))
    })
  verb('info', 'namespaces, addresses, processes and the database URI')
    .option('--json', 'as one JSON object')
    .action((options: { name: string; json?: boolean }) => {
      say(JSON.stringify(info(options.name), null, options.json ? 0 : 2))
    })
  verb('heal', 'undo every fault').action((options: { name: string }) => heal(options.name))
  verb('fault <what...>', 'break something')
    .option('--one-way', 'cut: only from the first to the second')
    .option('--link <link>', 'cut, loss, slow: lan or peer; both unless given')
    .option('--percent <n>', 'loss')
    .option('--delay-ms <n>', 'slow, witness-slow')
    .option('--jitter-ms <n>', 'slow')
    .option('--duplicate-percent <n>', 'slow')
    .option('--jump-ms <n>', 'clock')
    .addHelpText('after', `\nFaults:\n${FAULT_HELP}`)
    .action((words: string[], options: FaultOptions & { name: string }) =>
      inject(options.name, parseFault(words, options)),
    )
  return program
}

if (import.meta.main) {
  try {
    const reason = unsuitable()
    if (reason !== null) throw new Error(reason)
    await commandLine().parseAsync()
  } catch (error) {
    process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n`)
    process.exit(1)
  }
}
