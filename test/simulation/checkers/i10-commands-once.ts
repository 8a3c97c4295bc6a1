import { genHeard } from '../../../shared/protocol/facts.ts'
import type { DataNode } from '../../../shared/protocol/types.ts'
import { type Hooks, type MakeChecker, Violation } from './check.ts'

/**
 * I10: a command takes effect at most once, at the epoch it names. An attempt that died with its agent, before the other
 * host was named, took no effect: asked for again within its half second it may be made again.
 */
export const commandsOnce: MakeChecker = pair => {
  const begun = new Map<string, number>()
  const underWay: { [node in DataNode]: string } = { a: '', b: '' }
  const step: Hooks['step'] = (host, before, after, event) => {
    const { vacate } = after
    const died = underWay[host.node]
    if (event.event === 'start' && died !== '') begun.set(died, (begun.get(died) ?? 0) - 1)
    if (vacate?.kind !== 'planned') underWay[host.node] = ''
    if (vacate !== null && before.vacate === null && vacate.kind === 'planned') {
      const epoch = after.durable.known?.value.epoch ?? 0
      const gen = after.durable.known?.value.gen ?? 0
      const own = ['uplink', 'about to stop', 'leaves the pair'].some(words => vacate.why.includes(words))
      const key = `${gen}.${epoch}`
      const times = (begun.get(key) ?? 0) + (own ? 0 : 1)
      begun.set(key, times)
      underWay[host.node] = own ? '' : key
      if (times > pair.operator.switchoversFor(epoch)) {
        throw new Violation(
          'I10',
          `${host.node} switches over for the ${times}. time in epoch ${epoch} (gen ${gen}), asked for ${pair.operator.switchoversFor(epoch)} times`,
        )
      }
    }
    const was = before.durable.known?.value.gen ?? 0
    const is = after.durable.known?.value.gen ?? 0
    if (event.event === 'operator' && is > was && event.command.command === 'force') {
      const heard = genHeard(before)
      if (event.command.gen !== heard)
        throw new Violation(
          'I10',
          `a force meant for gen ${event.command.gen} made gen ${is} of ${was}, ${heard} heard of`,
        )
    }
  }
  return { name: 'I10', step }
}
