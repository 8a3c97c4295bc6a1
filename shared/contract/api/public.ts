import { z } from 'zod'
import { route } from './route.ts'

export const health = route({
  id: 'health',
  method: 'get',
  path: '/health',
  tag: 'public',
  summary: 'Whether this instance runs',
  access: 'public',
  reply: z.object({ ok: z.literal(true) }),
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
