/**
 * `npm run test:vm`: what wants a kernel of its own, on two emulated machines. Outside of `npm test`: it takes a quarter of
 * an hour and a gigabyte, and an emulated processor is too slow to say anything about times. It installs the emulator and
 * the program that makes the image, says so, and leaves nothing behind but those. `--keep DIR` keeps image, disks and
 * consoles in that folder, and takes the image from there the next time; `--only WORDS` runs the tests of such a name.
 */

import { spawn } from 'node:child_process'
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { ensureDebianPackages, unsuitable, VM_PACKAGES } from '../../infra/dev/debian-packages.ts'
import { run } from '../../infra/lab/exec.ts'
import { type Image, makeImage, refresh } from './image.ts'

const say = (line: string): void => {
  process.stderr.write(`${line}\n`)
}
const { values } = parseArgs({ options: { keep: { type: 'string' }, only: { type: 'string' } } })
const reason = unsuitable()
if (reason !== null) throw new Error(reason)
await ensureDebianPackages(VM_PACKAGES, { why: 'test:vm', say })
const folder = values.keep ?? mkdtempSync(join(tmpdir(), 'understudy-vm-'))
mkdirSync(folder, { recursive: true })
let code = 1
try {
  await run(process.execPath, [join(import.meta.dirname, '../../infra/dev/build.ts')])
  const known = join(folder, 'image.json')
  if (existsSync(known)) await refresh(JSON.parse(readFileSync(known, 'utf8')) as Image)
  else {
    say('the image of the machines is made, which takes some minutes ...')
    writeFileSync(known, JSON.stringify(await makeImage(folder, say)))
  }
  for (const name of ['a', 'b']) rmSync(join(folder, `${name}.img`), { force: true })
  rmSync(join(folder, 'witness'), { recursive: true, force: true })
  say('two machines are switched on ...')
  const args = ['--disable-warning=ExperimentalWarning', '--test', '--test-reporter=spec']
  if (values.only !== undefined) args.push(`--test-name-pattern=${values.only}`)
  const child = spawn(process.execPath, [...args, join(import.meta.dirname, 'machines.test.ts')], {
    stdio: 'inherit',
    env: { ...process.env, UNDERSTUDY_VM_FOLDER: folder },
  })
  code = await new Promise<number>(resolve => child.on('close', ended => resolve(ended ?? 1)))
} finally {
  if (values.keep === undefined) rmSync(folder, { recursive: true, force: true })
}
process.exit(code)
