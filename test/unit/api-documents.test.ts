import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { isDeepStrictEqual } from 'node:util'
import { apiDocuments, documentsFolder } from '../../infra/dev/api-documents.ts'

test('the OpenAPI and AsyncAPI documents in the repository are what the control plane serves', async () => {
  for (const [name, text] of await apiDocuments()) {
    const written: unknown = JSON.parse(readFileSync(join(documentsFolder, name), 'utf8'))
    const remedy = 'run infra/dev/with-tools infra/dev/api-documents.ts, npm run format, and look at the difference'
    assert.ok(isDeepStrictEqual(written, JSON.parse(text)), `${name}: ${remedy}`)
  }
})

test('every reference within the documents leads somewhere', async () => {
  for (const [name, text] of await apiDocuments()) {
    const document: unknown = JSON.parse(text)
    for (const [, path] of text.matchAll(/"\$ref": "#\/([^"]+)"/g)) {
      // Schemas of AsyncAPI messages have definitions of their own, which their references mean.
      if (path!.startsWith('$defs/')) continue
      let at: unknown = document
      for (const part of path!.split('/'))
        at = (at as Record<string, unknown> | undefined)?.[part.replaceAll('~1', '/')]
      assert.notEqual(at, undefined, `${name}: ${path}`)
    }
  }
})
