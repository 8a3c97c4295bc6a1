import type { Config } from '../config.ts'
import { changeLostHostKey } from '../witness/host-key-change.ts'
import { replaceSecrets } from './keys.ts'
import { readSetup, writeSetup } from './setup-file.ts'

/**
 * The other host is gone for good: what it knows of the pair opens nothing any more, here from the next start of the agent
 * on, and at witnesses of one's own. Cut off in the middle, it is done again.
 *
 * @returns where the lost host is known still, in a sentence, or ''
 */
export async function shutOut(config: Config): Promise<string> {
  await replaceSecrets(config)
  const setup = readSetup(config.stateDir)
  if (setup === null) return ''
  const hold = (otherHostKeyPem: string): Promise<void> => writeSetup(config.stateDir, { ...setup, otherHostKeyPem })
  return changeLostHostKey({ config, before: setup.otherHostKeyPem, hold })
}
