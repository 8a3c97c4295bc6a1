import type { Durable } from '../../shared/protocol/types.ts'
import type { Config } from '../config.ts'
import { DiskSpace } from '../disk/space.ts'
import type { Ports } from '../ports.ts'
import type { Pulse } from '../pulse.ts'
import { Services } from '../services/supervisor.ts'
import { hostClock } from './clock.ts'
import { DatabaseDriver } from './database-port.ts'
import { GateDriver } from './gate-port.ts'
import { PeerDriver } from './peer-port.ts'
import { StoreDriver } from './store-port.ts'
import { UplinkDriver } from './uplink-port.ts'
import { VipDriver } from './vip-port.ts'
import { WitnessDriver } from './witness-port.ts'

/** The real drivers. The store comes first: its lock is what keeps a second agent from touching anything. */
export async function openPorts(
  config: Config,
  options: { note: (why: string) => void; pulse: Pulse },
): Promise<{ ports: Ports; durable: Durable }> {
  const { note } = options
  const store = await StoreDriver.open(config.stateDir)
  const gate = new GateDriver(config)
  const reachable = (): boolean => gate.read().state === 'open'
  const ports: Ports = {
    clock: hostClock,
    gate,
    vip: new VipDriver(config),
    uplink: config.uplink === null ? null : new UplinkDriver(config.uplink),
    database: await DatabaseDriver.open(config, options),
    disk: new DiskSpace({
      dataDir: config.postgres.dataDir,
      stateDir: config.stateDir,
      freeDiskMb: config.limits.freeDiskMb,
    }),
    peer: new PeerDriver(config, options.pulse),
    witness: config.witness === null ? null : await WitnessDriver.open(config, config.witness, note),
    store,
    services: new Services({ ...config, runtimeDir: config.stateDir, reachable, note }),
  }
  return { ports, durable: store.durable }
}
