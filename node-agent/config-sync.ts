import type { Config } from './config.ts'
import type { ConfigFault } from './config-faults.ts'

/** Rules between the section `sync` and the rest. */
export function syncFaults({ sync, protectedPorts, postgres, stateDir }: Config): ConfigFault[] {
  if (sync === null) return []
  const faults: ConfigFault[] = []
  if (protectedPorts.includes(sync.port)) {
    const rule = 'is a protected port'
    faults.push({
      field: 'sync.port',
      value: sync.port,
      rule,
      remedy: 'files go on to the backup whoever serves: choose another port',
    })
  }
  const others = sync.trees.map(tree => tree.path)
  for (const [index, { name, path, partition }] of sync.trees.entries()) {
    const field = `sync.trees[${index}]`
    if (sync.trees.findIndex(one => one.name === name) !== index) {
      faults.push({
        field: `${field}.name`,
        value: name,
        rule: 'is used twice',
        remedy: 'give each tree a name of its own',
      })
    }
    if (partition !== null && others.some(other => isWithin(partition.source, other))) {
      const rule = 'lies in a tree: it would be replicated, and hold itself'
      const remedy = 'name a file beside the trees'
      faults.push({ field: `${field}.partition.source`, value: partition.source, rule, remedy })
    }
    if (partition !== null && sync.trees.findIndex(one => one.partition?.source === partition.source) !== index) {
      const remedy = 'give each tree a partition of its own'
      faults.push({ field: `${field}.partition.source`, value: partition.source, rule: 'is used twice', remedy })
    }
    const nested = others.find((other, at) => at !== index && isWithin(path, other))
    if (nested !== undefined) {
      faults.push({
        field: `${field}.path`,
        value: path,
        rule: `lies in ${nested}, which is a tree too`,
        remedy: 'name only one of them',
      })
    }
    for (const [what, folder] of [
      ['postgres.dataDir', postgres.dataDir],
      ['stateDir', stateDir],
    ] as const) {
      if (!isWithin(folder, path) && !isWithin(path, folder)) continue
      const rule = `and ${what} ${folder} lie in each other`
      const remedy = 'the database has its own replication, and each host its own state: choose a tree apart from them'
      faults.push({ field: `${field}.path`, value: path, rule, remedy })
    }
  }
  return faults
}

const isWithin = (path: string, folder: string): boolean => `${path}/`.startsWith(`${folder.replace(/\/+$/, '')}/`)
