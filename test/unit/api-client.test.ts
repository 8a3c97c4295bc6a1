import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import { UnderstudyClient } from '../../control-plane/client/generated/understudy-client.ts'
import { apiClient, clientPath } from '../../infra/dev/api-client.ts'
import { routes } from '../../shared/contract/api/index.ts'

test('the client in the repository is the one that is generated from the API’s document', () => {
  const remedy = 'run infra/dev/with-tools infra/dev/api-client.ts (after api-documents.ts) and look at the difference'
  assert.equal(readFileSync(clientPath, 'utf8'), apiClient(), remedy)
})

test('the client has a method for each call that is made with a bearer token, and no other', () => {
  const calls = routes
    .filter(route => !/^\/(agent|witness)\//.test(route.path) && route.id !== 'streamEvents')
    .map(route => route.id)
  const methods = Object.getOwnPropertyNames(UnderstudyClient.prototype).filter(name => name !== 'constructor')
  assert.deepEqual(methods.sort(), calls.sort())
})

test('a document with a keyword that the generator does not know is refused, so that no type is a guess', () => {
  const schema = { type: 'object', patternProperties: {} }
  const text = JSON.stringify({ paths: {}, components: { schemas: { Odd: schema } } })
  assert.throws(() => apiClient(text), /does not know patternProperties/)
})
