import type { NodeId } from '../../../shared/protocol/types.ts'
import type { Network } from '../network.ts'
import type { Pair } from '../pair.ts'
import type { Act, Scene } from './fault.ts'

/** What befalls the links. */

type Change = (by: 1 | -1) => void

const during = (change: Change): (() => void) => {
  change(1)
  return () => change(-1)
}

function cutBoth(network: Network, x: NodeId, y: NodeId, by: 1 | -1): void {
  network.cutAll(x, y, by)
  network.cutAll(y, x, by)
}

const cutPath: Act = ({ pair, host, fault }) =>
  during(by => {
    const path = fault.x < 0.6 ? 0 : 1
    pair.network.cut(host.node, host.peer.node, path, by)
    pair.network.cut(host.peer.node, host.node, path, by)
  })

const cutWitness: Act = ({ pair, host, fault }) =>
  during(by => {
    cutBoth(pair.network, host.node, 'w', by)
    if (fault.x < 0.3) cutBoth(pair.network, host.peer.node, 'w', by)
  })

/** Loss or delay on the link between the hosts, or on the one to the witness. */
const worse =
  (how: (fault: Scene['fault']) => { loss: number; delayMs: number }): Act =>
  ({ pair, host, fault }) => {
    const { loss, delayMs } = how(fault)
    const other = fault.x < 0.6 ? host.peer.node : 'w'
    return during(by => {
      pair.network.worsen(host.node, other, { loss: by * loss, delayMs: by * delayMs })
      pair.network.worsen(other, host.node, { loss: by * loss, delayMs: by * delayMs })
    })
  }

/** Cut and whole by turns. */
export function flap(pair: Pair, change: Change, everyMs: number): () => void {
  let isCut = false
  let over = false
  const turn = () => {
    if (over) return
    isCut = !isCut
    change(isCut ? 1 : -1)
    pair.world.after(everyMs, turn)
  }
  turn()
  return () => {
    over = true
    if (isCut) change(-1)
  }
}

export const linkFaults = {
  cutPeer: ({ pair, host }) => during(by => cutBoth(pair.network, host.node, host.peer.node, by)),
  cutOneWay: ({ pair, host }) => during(by => pair.network.cutAll(host.node, host.peer.node, by)),
  cutPath,
  cutWitness,
  isolate: ({ pair, host }) =>
    during(by => {
      cutBoth(pair.network, host.node, host.peer.node, by)
      cutBoth(pair.network, host.node, 'w', by)
      host.setUplink(by)
    }),
  deaf: ({ pair, host }) =>
    during(by => {
      pair.network.cutAll(host.peer.node, host.node, by)
      pair.network.cutAll('w', host.node, by)
    }),
  mute: ({ pair, host }) =>
    during(by => {
      pair.network.cutAll(host.node, host.peer.node, by)
      pair.network.cutAll(host.node, 'w', by)
    }),
  uplink: ({ host }) => during(by => host.setUplink(by)),
  lossy: worse(fault => ({ loss: fault.y * 0.4, delayMs: 0 })),
  slowLink: worse(fault => ({ loss: 0, delayMs: fault.y * fault.y * 800 })),
  flap: ({ pair, host, fault }) =>
    flap(pair, by => cutBoth(pair.network, host.node, host.peer.node, by), 100 + fault.y * 1900),
} satisfies { [kind: string]: Act }
