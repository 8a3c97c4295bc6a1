import type { z } from 'zod'
import { Refusal } from './problem.ts'

type Violation = NonNullable<Refusal['extra']['violations']>[number]

/** Every violation at once, each with its field and the rule it breaks; values are not echoed. @throws Refusal */
export function validated<Schema extends z.ZodType>(schema: Schema, value: unknown, where: string): z.output<Schema> {
  const result = schema.safeParse(value, { error: sentenceOf })
  if (result.success) return result.data
  const violations = result.error.issues.flatMap(issue => violationsOf(issue, where))
  throw new Refusal(
    'invalid',
    violations
      .map(one => `${one.field}: ${one.message}`)
      .join('; ')
      .slice(0, detailMax),
    {
      violations: violations.slice(0, violationsMax),
    },
  )
}

/** A request that breaks more rules than this is no request. */
const violationsMax = 50
const detailMax = 1000

function violationsOf(issue: z.core.$ZodIssue, where: string): Violation[] {
  const at = (path: PropertyKey[]): string => [where, ...path.map(String)].join('.')
  if (issue.code === 'unrecognized_keys') {
    return issue.keys.map(key => ({
      field: at([...issue.path, key]),
      rule: 'unknown_field',
      message: 'there is no such field; a misspelt one must not be ignored',
    }))
  }
  return [{ field: at(issue.path), rule: ruleOf(issue), message: issue.message }]
}

/** Where a rule of the contract has no words of its own; undefined: the library's. */
function sentenceOf(issue: z.core.$ZodRawIssue): string | undefined {
  switch (issue.code) {
    case 'invalid_type':
      return issue.input === undefined ? 'is missing' : `must be of type ${issue.expected}`
    case 'invalid_value':
      return `must be ${issue.values.length > 1 ? 'one of ' : ''}${issue.values.map(one => JSON.stringify(one)).join(', ')}`
    case 'too_big':
      return `must ${amountOf(issue.origin, `at most ${issue.maximum}`)}`
    case 'too_small':
      return `must ${amountOf(issue.origin, `at least ${issue.minimum}`)}`
    case 'invalid_format':
      return issue.format === 'datetime' ? 'must be a time in UTC, such as 2026-01-31T08:00:00Z (RFC 3339)' : undefined
    case 'invalid_union':
      return 'fits none of the forms that are allowed here'
    default:
      return undefined
  }
}

function amountOf(origin: string, bound: string): string {
  if (origin === 'string') return `have ${bound} characters`
  return origin === 'array' ? `have ${bound} entries` : `be ${bound}`
}

function ruleOf(issue: z.core.$ZodIssue): string {
  if (issue.code === 'custom') return String(issue.params?.rule ?? 'format')
  return issue.code
}
