import { z } from 'zod'
import { networkTypes, vswitchBackends } from '../hosts/network.ts'

/**
 * What the hosts of a pair compare of each other's networks and storage. It travels between the agents in one transfer and
 * stands beside a host's row in the control plane, so it is bounded, and says what it leaves out.
 */
export const summaryLimits = { vswitches: 48, networks: 64, addresses: 16, luns: 256, vips: 32 } as const

const word = z.string().max(64)
const addresses = z.array(z.string().max(50)).max(summaryLimits.addresses)

export const hostSummary = z.object({
  v: z.literal(1),
  /** Those that have a type: what else bridges there are is no business of the pair. */
  vswitches: z
    .array(
      z.object({
        name: word,
        backend: z.enum(vswitchBackends),
        vlan: z.int().nullable(),
        mtu: z.int(),
        types: z.array(z.enum(networkTypes)).max(networkTypes.length),
      }),
    )
    .max(summaryLimits.vswitches),
  /** Every device with addresses of the host: where a virtual address can be. */
  networks: z.array(z.object({ name: word, addresses })).max(summaryLimits.networks),
  /** As configured: "10.0.0.100/24" on "svc0". */
  vips: z.array(z.object({ address: z.string().max(50), interface: word })).max(summaryLimits.vips),
  initiatorName: z.string().max(223).nullable(),
  luns: z
    .array(
      z.object({
        wwid: z.string().max(128),
        name: word,
        sizeBytes: z.number().min(0),
        /** By one path at least. */
        up: z.boolean(),
        used: z.boolean(),
      }),
    )
    .max(summaryLimits.luns),
  /** Beyond those listed, in the order of their WWIDs. */
  lunsLeftOut: z.int().min(0),
})
export type HostSummary = z.output<typeof hostSummary>
