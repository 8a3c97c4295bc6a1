import { z } from 'zod'
import { route } from './route.ts'

export const health = route({
  id: 'health',
  method: 'get',
  path: '/health',
  tag: 'public',
  summary: 'Whether this instance runs, and the servers of its own that it keeps running',
  access: 'public',
  reply: z.object({
    ok: z.literal(true),
    children: z
      .array(
        z.object({
          name: z.enum(['postgres', 'mosquitto']),
          running: z.boolean(),
          restarts: z.int().describe('Since this instance began; the log says why'),
        }),
      )
      .describe('Empty where it uses servers of somebody else'),
  }),
})

export const ready = route({
  id: 'ready',
  method: 'get',
  path: '/ready',
  tag: 'public',
  summary: 'Whether it can serve: 503 while the database does not answer',
  access: 'public',
  reply: z.object({ ok: z.literal(true) }),
})
