import { existsSync } from 'node:fs'
import { parsePrefix } from '../shared/ip.ts'
import { type Config, ConfigError, vipInSubnet } from './config.ts'
import type { ConfigFault } from './config-faults.ts'
import { GateDriver } from './drivers/gate-port.ts'
import { addressOf } from './drivers/host-addresses.ts'
import { exec } from './exec.ts'
import { readBootId } from './kernel/clock.ts'
import { interfaceIndex } from './kernel/libc.ts'
import { RouteSocket } from './kernel/rtnetlink.ts'
import { lookUpUser } from './users.ts'

/**
 * What only this host can tell of a configuration. Reads; changes nothing.
 * @throws ConfigError with one sentence for each fault.
 */
export async function preflight(config: Config): Promise<void> {
  const faults = [
    ...rights(),
    ...interfaces(config),
    ...(await programs(config)),
    ...(await user(config)),
    ...bootId(config),
    ...cgroup(config),
  ]
  // Asked last: without rights or interfaces it would say the same in worse words.
  if (faults.length === 0) faults.push(...(await gate(config)))
  if (faults.length > 0) throw new ConfigError('this configuration', faults)
}

function rights(): ConfigFault[] {
  if (process.getuid?.() === 0) return []
  const rule = 'runs without the rights of root'
  const remedy = 'the gate and the addresses need them: start it as root, or by its systemd unit'
  return [{ field: 'the agent', value: undefined, rule, remedy }]
}

function interfaces(config: Config): ConfigFault[] {
  const route = new RouteSocket()
  try {
    return config.vips.flatMap((vip, index) => {
      const field = `vips[${index}]`
      if (interfaceIndex(vip.interface) === 0) {
        return [
          {
            field: `${field}.interface`,
            value: vip.interface,
            rule: 'does not exist on this host',
            remedy: '`ip -br link` lists what there is',
          },
        ]
      }
      const own = route.addresses(vip.interface).filter(held => held.address !== addressOf(vip.address))
      const family = parsePrefix(vip.address)?.family
      const same = own.filter(held => parsePrefix(`${held.address}/${held.prefixLength}`)?.family === family)
      // While the link is down IPv6 addresses are gone; a host that boots must not refuse for that.
      if (same.length === 0 || same.some(held => vipInSubnet(vip, `${held.address}/${held.prefixLength}`))) return []
      const subnets = same.map(held => `${held.address}/${held.prefixLength}`).join(', ')
      return [
        {
          field: `${field}.address`,
          value: vip.address,
          rule: `lies in no subnet of ${vip.interface}, which has ${subnets}`,
          remedy: 'clients in those subnets would not find it: choose an address of theirs',
        },
      ]
    })
  } finally {
    route.close()
  }
}

async function user({ postgres }: Config): Promise<ConfigFault[]> {
  if ((await lookUpUser(postgres.user)) !== null) return []
  const remedy = 'create it, or name the user that is to own and run the database'
  return [{ field: 'postgres.user', value: postgres.user, rule: 'does not exist on this host', remedy }]
}

/** No program is needed for the gate (it is netlink), but a kernel that has it. */
async function gate(config: Config): Promise<ConfigFault[]> {
  const driver = new GateDriver(config)
  try {
    driver.read()
    return []
  } catch (error) {
    const rule = `has no nftables for us: ${error instanceof Error ? error.message : String(error)}`
    return [
      {
        field: 'the kernel',
        value: undefined,
        rule,
        remedy: 'load nf_tables (`modprobe nf_tables`), or use a kernel with it',
      },
    ]
  } finally {
    await driver.detach()
  }
}

/** initdb and friends answer in milliseconds. */
const versionLimitMs = 5000
/** Written for these; the tests ran on what README.md names. */
const postgresMajors = [15, 16, 17, 18]

async function programs(config: Config): Promise<ConfigFault[]> {
  const { binDir } = config.postgres
  const missing = ['postgres', 'pg_ctl', 'initdb', 'pg_basebackup', 'pg_rewind', 'pg_controldata', 'pg_waldump'].filter(
    name => !existsSync(`${binDir}/${name}`),
  )
  if (missing.length > 0) {
    const rule = `does not contain ${missing.join(', ')}`
    const remedy =
      'install PostgreSQL (Debian: apt-get install postgresql-15) and name its bin folder, such as /usr/lib/postgresql/15/bin'
    return [{ field: 'postgres.binDir', value: binDir, rule, remedy }]
  }
  const major = await postgresMajor(config)
  if (postgresMajors.includes(major)) return []
  const rule = Number.isNaN(major)
    ? 'holds a PostgreSQL that does not run here'
    : `holds PostgreSQL ${major}, which is not one of ${postgresMajors.join(', ')}`
  return [{ field: 'postgres.binDir', value: binDir, rule, remedy: 'name the bin folder of a supported version' }]
}

/** NaN where the server program does not run. */
export async function postgresMajor(config: Config): Promise<number> {
  const answer = await exec([`${config.postgres.binDir}/postgres`, '--version'], { limitMs: versionLimitMs })
  return answer.ok ? Number(/(\d+)/.exec(answer.stdout)?.[1]) : Number.NaN
}

function cgroup({ cgroupParent }: Config): ConfigFault[] {
  if (cgroupParent === null || existsSync(`${cgroupParent}/cgroup.procs`)) return []
  const rule = 'is no cgroup v2 folder, as seen by this process'
  const remedy = 'name one under /sys/fs/cgroup, or remove the key to use the one of the unit'
  return [{ field: 'cgroupParent', value: cgroupParent, rule, remedy }]
}

function bootId(config: Config): ConfigFault[] {
  try {
    readBootId(config.bootIdPath)
    return []
  } catch (error) {
    const rule = error instanceof Error ? error.message : String(error)
    return [{ field: 'bootIdPath', value: config.bootIdPath, rule, remedy: 'remove the key to use the kernel’s own' }]
  }
}
