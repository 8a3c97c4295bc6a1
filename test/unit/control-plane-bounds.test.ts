import assert from 'node:assert/strict'
import { test } from 'node:test'
import { DrizzleQueryError } from 'drizzle-orm'
import { networkOf } from '../../control-plane/auth/bearer.ts'
import { Shares, shareBytesMax, shareBytesPerSecond } from '../../control-plane/broker/shares.ts'
import { identityProvidersOf } from '../../control-plane/entry/environment.ts'
import { faultLine, faultText } from '../../control-plane/fault-text.ts'

test('a host that says too much over the broker is not taken until time has given it a share again, and others are', () => {
  let nowMs = 0
  const shares = new Shares(() => nowMs)
  let taken = 0
  while (shares.take('a', 10_000)) taken++
  assert.ok(taken > 190 && taken <= shareBytesMax / 10_000, `${taken}`)
  assert.ok(shares.take('b', 10_000))
  nowMs += 1_000
  let later = 0
  while (shares.take('a', 10_000)) later++
  assert.ok(later >= 11 && later <= shareBytesPerSecond / 10_000 + 1, `${later}`)
  nowMs -= 3_600_000
  assert.equal(shares.take('a', 10_000), false, 'a clock that was set back gives nothing')
})

test('whoever guesses from ever other addresses of one IPv6 network is one, and those of IPv4 are each their own', () => {
  const [one, other] = ['2001:db8:0:7::1', '2001:db8:0:7:ffff:1:2:3'].map(networkOf)
  assert.equal(one, other)
  assert.notEqual(networkOf('2001:db8:0:8::1'), one)
  assert.notEqual(networkOf('::ffff:192.0.2.1'), networkOf('::ffff:192.0.2.2'))
  assert.equal(networkOf('::ffff:192.0.2.1'), networkOf('192.0.2.1'))
})

test('keys of an identity provider come over https, or from this machine', () => {
  const providers = (jwksUrl: string) =>
    identityProvidersOf(JSON.stringify([{ issuer: 'https://id.example', audience: 'understudy', jwksUrl }]))
  assert.throws(() => providers('http://id.example/jwks'), /OIDC_PROVIDERS: 0\.jwksUrl: must begin with https:\/\//)
  for (const url of ['https://id.example/jwks', 'http://127.0.0.1:9/jwks', 'http://[::1]/jwks'])
    assert.equal(providers(url)[0]?.jwksUrl, url)
})

test('the log names the statement that failed, and none of its values, however large they are', () => {
  const cause = new Error('duplicate key value violates unique constraint "host_pkey"')
  const error = new DrizzleQueryError('insert into host values ($1)', ['secret'.repeat(100_000)], cause)
  const text = faultText(error)
  assert.match(text, /^duplicate key value.* in: insert into host values \(\$1\)\n\s+at /)
  assert.ok(!text.includes('secret') && text.length <= 4000)
  assert.equal(
    faultLine(error),
    'duplicate key value violates unique constraint "host_pkey" in: insert into host values ($1)',
  )
  assert.ok(faultText(new Error('x'.repeat(1_000_000))).length <= 4000)
})
