import { type Hooks, type MakeChecker, Violation } from './check.ts'

/** I10: a command takes effect at most once, at the epoch it names. */
export const commandsOnce: MakeChecker = pair => {
  const begun = new Map<string, number>()
  const step: Hooks['step'] = (host, before, after, event) => {
    const { vacate } = after
    if (vacate !== null && before.vacate === null && vacate.kind === 'planned') {
      const epoch = after.durable.known?.value.epoch ?? 0
      const gen = after.durable.known?.value.gen ?? 0
      const own = vacate.why.includes('uplink') || vacate.why.includes('about to stop')
      const key = `${gen}.${epoch}`
      const times = (begun.get(key) ?? 0) + (own ? 0 : 1)
      begun.set(key, times)
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
      if (event.command.gen !== was)
        throw new Violation('I10', `a force meant for gen ${event.command.gen} made gen ${is} of ${was}`)
    }
  }
  return { name: 'I10', step }
}
