/**
 * An error for the log: what failed and where, bounded. Of a statement that the database refused it names the statement and
 * not its values: they are what tenants and hosts sent, up to megabytes of it, and nobody looks for that in a log.
 */
export function faultText(error: unknown): string {
  if (!(error instanceof Error)) return String(error).slice(0, lettersMax)
  const { query, cause } = error as { query?: unknown; cause?: unknown }
  if (typeof query !== 'string') return (error.stack ?? error.message).slice(0, lettersMax)
  const why = cause instanceof Error ? cause.message : 'the database refused a statement'
  const where = (error.stack ?? '').split('\n').filter(line => /^\s+at /.test(line))
  return [`${why.slice(0, partMax)} in: ${query.slice(0, partMax)}`, ...where].join('\n').slice(0, lettersMax)
}
const lettersMax = 4000
const partMax = 500

/** The same in one line, where a place says enough. */
export const faultLine = (error: unknown): string => faultText(error).split('\n')[0] ?? ''
