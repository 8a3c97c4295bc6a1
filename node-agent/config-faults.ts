import type { z } from 'zod'

/** One fault of a configuration: which field, what it holds, the rule it breaks, what to do. */
export interface ConfigFault {
  /** '' = the file itself. */
  field: string
  value: unknown
  rule: string
  remedy: string
}

export function showFault(fault: ConfigFault): string {
  const value = fault.value === undefined ? '' : ` ${showValue(fault.value)}`
  const remedy = fault.remedy === '' ? '' : `; ${fault.remedy}`
  return `${fault.field === '' ? 'the file' : fault.field}${value} ${fault.rule}${remedy}`
}

/** Long values would bury the sentence. */
const valueCharsMax = 80
function showValue(value: unknown): string {
  const text = JSON.stringify(value) ?? String(value)
  return text.length > valueCharsMax ? `${text.slice(0, valueCharsMax)}…` : text
}

type Issue = z.core.$ZodIssue

/** Messages of our own rules read "rule; remedy"; those of zod are put into the same form. */
export function explainIssues(issues: readonly Issue[], input: unknown): ConfigFault[] {
  return issues.flatMap(issue => explainIssue(issue, input))
}

function explainIssue(issue: Issue, input: unknown): ConfigFault[] {
  const field = showPath(issue.path)
  const value = valueAt(input, issue.path)
  switch (issue.code) {
    case 'unrecognized_keys':
      return issue.keys.map(key => unknownKey(field, key))
    case 'invalid_type':
      if (value === undefined)
        return [{ field, value, rule: 'is missing', remedy: `add it: ${article(issue.expected)}` }]
      return [{ field, value, rule: `must be ${article(issue.expected)}`, remedy: 'change its type' }]
    case 'invalid_value':
      return [missingOr(field, value, `must be one of ${issue.values.map(showValue).join(', ')}`, 'choose one of them')]
    case 'invalid_union':
      return explainUnion(issue, { field, value, input })
    default: {
      const [rule = '', ...remedy] = issue.message.split('; ')
      return [missingOr(field, value, lowerFirst(rule), remedy.join('; ') || 'change it')]
    }
  }
}

/** The alternative that fits best speaks: the one with unknown keys only, else the union's own sentence. */
function explainUnion(
  issue: Issue & { code: 'invalid_union' },
  at: { field: string; value: unknown; input: unknown },
): ConfigFault[] {
  const alternatives = issue.errors.filter(errors => errors.every(one => one.path.length > 0))
  const [only] = alternatives
  if (only !== undefined && alternatives.length === 1) {
    return only.flatMap(one => explainIssue({ ...one, path: [...issue.path, ...one.path] }, at.input))
  }
  const [rule = '', ...remedy] = issue.message.split('; ')
  return [{ field: at.field, value: at.value, rule: lowerFirst(rule), remedy: remedy.join('; ') }]
}

function missingOr(field: string, value: unknown, rule: string, remedy: string): ConfigFault {
  return value === undefined
    ? { field, value, rule: 'is missing', remedy: `add it; it ${rule}` }
    : { field, value, rule, remedy }
}

function unknownKey(field: string, key: string): ConfigFault {
  const where = field === '' ? key : `${field}.${key}`
  return {
    field: where,
    value: undefined,
    rule: 'is not a key of this configuration',
    remedy: 'correct its spelling or remove it',
  }
}

function showPath(path: readonly PropertyKey[]): string {
  return path.reduce<string>((text, part) => {
    if (typeof part === 'number') return `${text}[${part}]`
    return text === '' ? String(part) : `${text}.${String(part)}`
  }, '')
}

function valueAt(input: unknown, path: readonly PropertyKey[]): unknown {
  let value = input
  for (const part of path) {
    if (typeof value !== 'object' || value === null) return undefined
    value = Reflect.get(value, part)
  }
  return value
}

const article = (type: string): string => (/^[aeio]/.test(type) ? `an ${type}` : `a ${type}`)
const lowerFirst = (text: string): string => text.charAt(0).toLowerCase() + text.slice(1)
