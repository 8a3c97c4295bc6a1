import { z } from 'zod'

/** The protected services: started in this order after a promotion, stopped in the opposite order before a demotion. */

const argumentsMax = 64
const argv = z
  .array(z.string())
  .min(1, 'must name a program; write it like ["/usr/bin/app", "--port", "8080"]')
  .max(argumentsMax)
  .refine(
    value => (value[0] ?? '').startsWith('/'),
    'must begin with the absolute path of a program; no shell is involved',
  )

const healthTiming = {
  intervalMs: z.int().min(100).max(600_000).default(1000),
  timeoutMs: z.int().min(50).max(60_000).default(500),
  /** So many in a row mean "unhealthy": one late answer under load is not a failure. */
  failures: z.int().min(1).max(100).default(3),
}
const hostPort = z
  .string()
  .regex(/^(\[[0-9a-fA-F:]+\]|[^\s:]+):\d{1,5}$/, 'must be address:port; write it like "127.0.0.1:8080"')
const healthSchema = z.union(
  [
    z.strictObject({ command: argv, ...healthTiming }),
    z.strictObject({ tcp: hostPort, ...healthTiming }),
    z.strictObject({ http: z.url({ protocol: /^https?$/ }), ...healthTiming }),
  ],
  'must have exactly one of "command", "tcp" and "http", besides intervalMs, timeoutMs and failures',
)

const common = {
  name: z.string().regex(/^[a-z][a-z0-9-]{0,31}$/, 'must be 1 to 32 of a-z, 0-9 and "-", beginning with a letter'),
  health: healthSchema.nullable().default(null),
  /** Within the window; then the pair hands over, because the other host may fare better. */
  restarts: z
    .strictObject({
      budget: z.int().min(0).max(100).default(3),
      windowMs: z.int().min(1000).max(86_400_000).default(600_000),
    })
    .prefault({}),
  startLimitMs: z.int().min(100).max(600_000).default(30_000),
  /** Then it is killed. */
  stopLimitMs: z.int().min(100).max(600_000).default(5000),
}
/** The operating system's user a program runs as. */
const user = z.string().min(1).nullable().default(null)

export const serviceSchema = z.union(
  [
    /** A systemd unit, which must not be enabled: only the agent starts it. */
    z.strictObject({
      ...common,
      unit: z.string().regex(/^[\w@:.\\-]+\.(service|target)$/, 'must be a unit name like "app.service"'),
    }),
    /** A program that stays in the foreground; the agent keeps its process. */
    z.strictObject({ ...common, run: argv, user }),
    /** Two programs that end. */
    z.strictObject({ ...common, start: argv, stop: argv, user }),
  ],
  'must have exactly one of "unit", "run" and the two of "start" and "stop"; see `understudy help config`',
)

export type ServiceConfig = z.output<typeof serviceSchema>
export type HealthConfig = z.output<typeof healthSchema>
