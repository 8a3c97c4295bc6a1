import { z } from 'zod'
import { bondModes, networkTypes, vswitchBackends } from '../../hosts/network.ts'
import { hostParams, time } from './common.ts'
import { operation } from './operations.ts'
import { noBody, route } from './route.ts'

/**
 * The network and the storage of a host. In converged mode they belong to the cluster that the host is in: they are shown,
 * with the reason, and changes are answered with 409. What is shown is what the host told last, which it does after each
 * change; asking it, and changing something, are operations.
 */
const inventoryOf = z
  .object({
    asOf: time.nullable().describe('null: the host has not told yet; ask with POST …/inventory'),
    inventory: z.record(z.string(), z.unknown()).nullable(),
    readOnly: z.string().nullable().describe('Why nothing of it is changed from here; null: it can be'),
  })
  .meta({ id: 'HostInventory' })

const list = (max: number, letters: number) => z.array(z.string().max(letters)).max(max)
const deviceName = z.string().min(1).max(64)

export const vswitchWish = z.strictObject({
  name: z.string().min(1).max(64),
  backend: z.enum(vswitchBackends).default('bridge'),
  description: z.string().max(400).default(''),
  types: z.array(z.enum(networkTypes)).max(networkTypes.length),
  vlan: z.int().min(1).max(4094).nullable().default(null),
  nics: list(16, 64),
  bond: z.enum(bondModes).nullable().default(null),
  addresses: list(32, 50),
  gateways: list(8, 45).default([]),
  mtu: z.int().min(1).max(65_535).default(1500),
})

const operated = { tag: 'host tabs', access: 'pair:manage', reply: operation, status: 202, acts: true } as const

export const takeInventory = route({
  ...operated,
  id: 'takeInventory',
  method: 'post',
  path: '/v1/hosts/{host}/inventory',
  summary: 'Asks the host for its networks and its storage',
  access: 'pair:operate',
  params: hostParams,
  body: z.strictObject({}).default({}),
})

export const getNetwork = route({
  id: 'getNetwork',
  method: 'get',
  path: '/v1/hosts/{host}/network',
  tag: 'host tabs',
  summary: 'Virtual switches, NICs and routes, as the host last told them',
  access: 'host:read',
  params: hostParams,
  reply: inventoryOf,
})

export const putVswitch = route({
  ...operated,
  id: 'putVswitch',
  method: 'post',
  path: '/v1/hosts/{host}/network/vswitches',
  summary: 'Makes a virtual switch, or changes the one of that name; every rule that it breaks is listed',
  params: hostParams,
  body: vswitchWish,
})

export const deleteVswitch = route({
  ...operated,
  id: 'deleteVswitch',
  method: 'delete',
  path: '/v1/hosts/{host}/network/vswitches/{vswitch}',
  summary: 'Deletes a virtual switch that nothing needs',
  params: hostParams.extend({ vswitch: deviceName }),
  body: noBody,
})

export const getStorage = route({
  id: 'getStorage',
  method: 'get',
  path: '/v1/hosts/{host}/storage',
  tag: 'host tabs',
  summary: 'Storage adapters, devices and paths, as the host last told them',
  access: 'host:read',
  params: hostParams,
  reply: inventoryOf,
})

export const scanStorage = route({
  ...operated,
  id: 'scanStorage',
  method: 'post',
  path: '/v1/hosts/{host}/storage/scans',
  summary: 'Has adapters look for devices again; the result says what came and what is gone',
  access: 'pair:operate',
  params: hostParams,
  body: z.strictObject({
    adapters: z.array(deviceName).max(64).default([]).describe('[]: all of them'),
    lip: z
      .boolean()
      .default(false)
      .describe('Fibre Channel: resets the link first, which interrupts its traffic; the adapters have to be named'),
    limitSeconds: z.int().min(1).max(600).default(120).describe('For each adapter'),
  }),
})

export const discoverTargets = route({
  ...operated,
  id: 'discoverTargets',
  method: 'post',
  path: '/v1/hosts/{host}/storage/discoveries',
  summary: 'Asks an iSCSI portal, from the host, for the targets that it offers; nothing is logged in',
  params: hostParams,
  body: z.strictObject({
    portal: z.string().min(1).max(64).describe('An address, with a port unless it is 3260'),
  }),
})

export const changeInitiatorName = route({
  ...operated,
  id: 'changeInitiatorName',
  method: 'post',
  path: '/v1/hosts/{host}/storage/initiator-name',
  summary: 'Changes the host’s iSCSI name (IQN)',
  params: hostParams,
  body: z.strictObject({
    name: z.string().min(1).max(300),
    logOutSessions: z.boolean().default(false).describe('Sessions may be logged out for it, and in again'),
  }),
})
