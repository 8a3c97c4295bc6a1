import { join } from 'node:path'

/** Beside the agent's state. A host without a configuration has no agent, and the place where it would be. */
export const storageFolderOf = (stateDir: string | null): string => join(stateDir ?? usualStateDir, 'storage')
const usualStateDir = '/var/lib/understudy'
