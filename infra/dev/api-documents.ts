/**
 * The API as documents, as the control plane serves them at /openapi.json and /asyncapi.json:
 * `infra/dev/with-tools infra/dev/api-documents.ts` writes them; a test holds that they are what it would write, so that a
 * change of the contract is seen as one. `npm run format` afterwards.
 */
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { createApp } from '../../control-plane/app.ts'

export const documentsFolder = fileURLToPath(new URL('../docs/api', import.meta.url))

/** File name to contents. */
export async function apiDocuments(): Promise<Map<string, string>> {
  // Documents hold nothing of anybody: nothing is asked of the surroundings.
  const { app } = createApp(() => {
    throw new Error('a document asked for the surroundings')
  })
  const pages = new Map<string, string>()
  for (const name of ['openapi.json', 'asyncapi.json']) {
    const document: unknown = await (await app.request(`/${name}`)).json()
    pages.set(name, `${JSON.stringify(document, null, 1)}\n`)
  }
  return pages
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  mkdirSync(documentsFolder, { recursive: true })
  for (const [name, text] of await apiDocuments()) writeFileSync(join(documentsFolder, name), text)
}
