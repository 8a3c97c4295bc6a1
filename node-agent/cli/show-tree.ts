/** How far a tree's copy is, in the same words wherever it is shown. */
export interface ShownTree {
  state: string
  behindChanges?: number
  behindBytes?: number
  behindS?: number
  /** What keeps the copies from becoming the same. */
  blocked?: string | null
  seed?: { percent: number; leftS: number | null } | null
}

export function treeState(tree: ShownTree): string {
  const { state, behindChanges = 0, seed } = tree
  switch (state) {
    case 'behind':
      return `behind ${lag(tree)}`
    case 'seeding': {
      const left = seed?.leftS
      const estimate = typeof left === 'number' ? `about ${seconds(left)} left` : 'how long is not known yet'
      return `seeding ${seed?.percent ?? 0} %, ${estimate}`
    }
    case 'diverged':
      if (tree.blocked) return 'diverged: what is written is not replicated'
      return `diverged: differences were found and are repaired${behindChanges > 0 ? `; behind ${lag(tree)}` : ''}`
    case 'no backup':
      return `no backup is connected${behindChanges > 0 ? `; it will be behind ${lag(tree)}` : ''}`
    case 'receiving':
      return 'the backup’s copy, open for the primary; how far it is the primary knows'
    case 'closed':
      return 'closed until this host’s role is known'
    default:
      return state
  }
}

/** Bytes are an estimate: only some of what waits is looked at. */
const lag = ({ behindChanges = 0, behindBytes = 0, behindS = 0 }: ShownTree): string =>
  `by ${behindChanges} change${behindChanges === 1 ? '' : 's'}, about ${bytes(behindBytes)}, ${seconds(behindS)}`

const units = ['bytes', 'KiB', 'MiB', 'GiB', 'TiB'] as const
function bytes(count: number): string {
  let at = 0
  let value = count
  while (value >= 1024 && at < units.length - 1) {
    value /= 1024
    at += 1
  }
  return `${at === 0 || value >= 100 ? Math.round(value) : value.toFixed(1)} ${units[at]}`
}

function seconds(count: number): string {
  if (count < 10) return `${count.toFixed(1)} s`
  if (count < 120) return `${Math.round(count)} s`
  return count < 7200 ? `${Math.round(count / 60)} minutes` : `${Math.round(count / 3600)} hours`
}
