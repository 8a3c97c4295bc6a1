import * as agents from './agents.ts'
import * as hostTabs from './host-tabs.ts'
import * as hosts from './hosts.ts'
import * as observation from './observation.ts'
import * as operations from './operations.ts'
import * as organisations from './organisations.ts'
import * as pairs from './pairs.ts'
import * as publicly from './public.ts'
import type { Route } from './route.ts'
import * as toolKeys from './tool-keys.ts'
import * as witness from './witness.ts'

const isRoute = (value: unknown): value is Route =>
  typeof value === 'object' && value !== null && 'path' in value && 'access' in value && 'method' in value

/** Every route there is, each with who may call it. */
export const routes: readonly Route[] = [
  organisations,
  hosts,
  hostTabs,
  pairs,
  operations,
  observation,
  agents,
  publicly,
  toolKeys,
  witness,
].flatMap(area => Object.values(area).filter(isRoute))
