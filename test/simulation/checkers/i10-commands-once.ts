import { type MakeChecker, Violation } from './check.ts'

/** I10: a command takes effect at most once, at the epoch it names. */
export const commandsOnce: MakeChecker = pair => ({
  name: 'I10',
  step: (host, before, after, event) => {
    const { vacate } = after
    if (vacate !== null && before.vacate === null && vacate.kind === 'planned') {
      const epoch = after.durable.known?.value.epoch ?? 0
      const gen = after.durable.known?.value.gen ?? 0
      const own = vacate.why.includes('uplink') || vacate.why.includes('about to stop')
      if (!own && !pair.operator.wantedSwitchover(epoch)) {
        throw new Violation('I10', `${host.node} switches over in epoch ${epoch} (gen ${gen}) without a command for it`)
      }
    }
    const was = before.durable.known?.value.gen ?? 0
    const is = after.durable.known?.value.gen ?? 0
    if (event.event === 'operator' && is > was && event.command.command === 'force') {
      if (event.command.gen !== was)
        throw new Violation('I10', `a force meant for gen ${event.command.gen} made gen ${is} of ${was}`)
    }
  },
})
