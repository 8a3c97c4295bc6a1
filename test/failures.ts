/**
 * A reporter of node's test runner that keeps what failed: a stage with several runs tells it once more at its end,
 * where nothing that passed pushes it out of sight.
 */

interface TestEvent {
  type: string
  data: {
    name?: string
    file?: string
    line?: number
    message?: string
    details?: { error?: { message?: string; cause?: unknown; failureType?: string } }
  }
}

/** A suite fails with its tests, and they are told. */
const OF_ITS_TESTS = 'subtestsFailed'

const MAX_LINES = 12

function sentence(error: NonNullable<TestEvent['data']['details']>['error']): string {
  const cause = error?.cause
  const text = cause instanceof Error ? (cause.stack ?? cause.message) : String(cause ?? error?.message ?? 'no reason')
  return text.split('\n').slice(0, MAX_LINES).join('\n    ')
}

// biome-ignore lint/style/noDefaultExport: the runner looks for a default export.
export default async function* failures(events: AsyncIterable<TestEvent>): AsyncGenerator<string> {
  for await (const { type, data } of events) {
    if (type === 'test:diagnostic' && data.message?.startsWith('Error: ') === true) yield `  ${data.message}\n`
    if (type !== 'test:fail' || data.details?.error?.failureType === OF_ITS_TESTS) continue
    yield `✖ ${data.name} (${data.file}:${data.line})\n    ${sentence(data.details?.error)}\n`
  }
}
