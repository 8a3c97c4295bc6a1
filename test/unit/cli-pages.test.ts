import assert from 'node:assert/strict'
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { cliPages, pagesFolder } from '../../infra/dev/cli-pages.ts'
import { understudy } from '../../node-agent/cli/main.ts'

test('the pages of the command line are what the program says of itself', () => {
  const remedy = 'run infra/dev/with-tools infra/dev/cli-pages.ts and look at the difference'
  const pages = cliPages()
  assert.deepEqual(readdirSync(pagesFolder).sort(), [...pages.keys()].sort(), remedy)
  for (const [name, text] of pages)
    assert.equal(readFileSync(join(pagesFolder, name), 'utf8'), text, `${name}: ${remedy}`)
})

test('every verb has a description and an example', () => {
  for (const [name, text] of cliPages()) {
    if (name === 'README.md' || name === 'understudy.md') continue
    const isGroup = text.includes('Commands:')
    assert.ok(isGroup || /Example/.test(text), `${name} has no example`)
  }
  const program = understudy()
  for (const command of program.createHelp().visibleCommands(program))
    if (command.name() !== 'help') assert.notEqual(command.description(), '', command.name())
})
