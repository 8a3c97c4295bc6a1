import { z } from 'zod'
import { exec } from '../exec.ts'

/** What multipathd says of its maps (`multipathd show maps json`), as far as it is used here. */
export interface MultipathMap {
  /** The kernel's name: dm-3. */
  device: string
  /** Path selector and grouping, as multipathd names them: "service-time 0". */
  policy: string
  paths: { name: string; up: boolean }[]
}

const pathSchema = z.object({ dev: z.string(), dm_st: z.string() })
const groupSchema = z.object({ selector: z.string(), paths: z.array(pathSchema) })
const answerSchema = z.object({
  maps: z.array(z.object({ sysfs: z.string(), path_groups: z.array(groupSchema) })),
})

/** multipathd answers from memory; one that hangs with its paths is not waited for. */
const limitMs = 3000
/** Some 700 bytes a path, of which a large host has thousands. */
const outputBytesMax = 32 * 2 ** 20

/** [] where there is no multipathd, or none that answers: the maps are still found, their policy is unknown then. */
export async function readMultipath(): Promise<MultipathMap[]> {
  const result = await exec(['multipathd', 'show', 'maps', 'json'], { limitMs, outputBytesMax, whenKilled: 'leave' })
  return result.ok ? parseMultipath(result.stdout) : []
}

export function parseMultipath(text: string): MultipathMap[] {
  let json: unknown
  try {
    json = JSON.parse(text)
  } catch {
    return []
  }
  const answer = answerSchema.safeParse(json)
  if (!answer.success) return []
  return answer.data.maps.map(map => ({
    device: map.sysfs,
    policy: map.path_groups[0]?.selector ?? 'unknown',
    paths: map.path_groups.flatMap(group => group.paths.map(path => ({ name: path.dev, up: path.dm_st === 'active' }))),
  }))
}
