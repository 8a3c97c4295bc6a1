/**
 * `npm start`: a pair with a real PostgreSQL on this machine, shown live until Ctrl-C. Installs the Debian packages that
 * are missing (the npm packages are installed by infra/dev/with-tools before), and cleans up when it ends.
 */

import { setTimeout as sleep } from 'node:timers/promises'
import { ensureDebianPackages, LAB_PACKAGES, unsuitable } from '../dev/debian-packages.ts'
import { namespaceName } from './addresses.ts'
import { adoptLab } from './adopt.ts'
import { down, info, type LabInfo, showStatus, status, up } from './lab.ts'
import { labExists } from './lab-state.ts'
import { isInterrupted, runProgram } from './program.ts'

const NAME = 'lab'
const LOOK_EVERY_MS = 1_000
/** A line is repeated after so long even when nothing changed, so that one sees that it lives. */
const REPEAT_MS = 30_000

const say = (line: string): void => {
  process.stdout.write(`${line}\n`)
}

function instructions({ hosts, client, web, database }: LabInfo): string {
  const { uri } = database
  return `
Two hosts, a and b, keep one PostgreSQL and a small web service running on ${new URL(web).hostname}.

Look (in another terminal, as root):
  npm run lab -- status                     both hosts in one line each; info --json has every address
  ip netns exec ${client.netns} psql '${uri}'
  ip netns exec ${client.netns} curl -s ${web}
  infra/dev/with-tools node-agent/cli/main.ts status --socket ${hosts.a.socket}

Break it, and watch here:
  npm run lab -- fault power a              power cut of host a      (fault power-on a)
  npm run lab -- fault isolate a            its network is gone
  npm run lab -- fault freeze a agent       its agent hangs
  npm run lab -- fault kill a postmaster    its database dies
  npm run lab -- heal                       undo all of it
  npm run lab -- fault --help               everything else that can be broken

Ctrl-C ends it and removes everything.
`
}

/** The pair goes on without it, so its failure is a line and not the end. */
async function manage(): Promise<void> {
  try {
    const { url, adminToken, pair } = await adoptLab(NAME, say)
    say(`
The control plane at ${url} knows both hosts and the pair (${url}/docs to browse, on the lab's switch):
  token of the administrator: ${adminToken}
  ip netns exec ${namespaceName(NAME, 'net')} curl -s -H 'authorization: Bearer ${adminToken}' ${url}/v1/pairs/${pair}
`)
  } catch (error) {
    say(
      `the control plane did not come up, the pair serves without it: ${error instanceof Error ? error.message : error}`,
    )
  }
}

async function showLive(): Promise<never> {
  let shown = ''
  let shownAtMs = 0
  for (;;) {
    const lines = showStatus(await status(NAME)).join('\n')
    // How far behind the backup is changes all the time and is no news.
    const news = lines.replaceAll(/, lag \d+ bytes/g, '')
    // Nor is how it is taken apart.
    if (!isInterrupted() && (news !== shown || performance.now() - shownAtMs > REPEAT_MS)) {
      say(`${new Date().toLocaleTimeString()}\n${lines.replaceAll(/^/gm, '  ')}`)
      shown = news
      shownAtMs = performance.now()
    }
    await sleep(LOOK_EVERY_MS)
  }
}

async function main(): Promise<never> {
  const reason = unsuitable()
  if (reason !== null) throw new Error(reason)
  await ensureDebianPackages([...LAB_PACKAGES, 'mosquitto'], { why: 'the lab', say })
  if (labExists(NAME)) {
    say('an earlier lab is removed first')
    await down(NAME)
  }
  await up({ name: NAME, say })
  try {
    say(instructions(info(NAME)))
    await manage()
    return await showLive()
  } finally {
    await down(NAME)
  }
}

// Ctrl-C is how it is meant to end.
if (import.meta.main) runProgram(main, { say, interruptedCode: 0 })
