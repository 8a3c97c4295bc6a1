import { z } from 'zod'

/** What `ovs-vsctl --format=json` prints (ovs-vsctl(8), RFC 7047 for sets, maps and UUIDs). */

export interface OvsBridge {
  name: string
  ports: OvsPort[]
  description: string
}

export interface OvsPort {
  name: string
  tag: number | null
  bondMode: string | null
  interfaces: { name: string; type: string; mtu: number | null }[]
}

const tableSchema = z.object({ headings: z.array(z.string()), data: z.array(z.array(z.unknown())) })

type Row = { [column: string]: unknown }

export function rowsOf(text: string): Row[] {
  const { headings, data } = tableSchema.parse(JSON.parse(text))
  return data.map(values => Object.fromEntries(headings.map((heading, index) => [heading, values[index]])))
}

/** A set of one stands bare; an empty one is ["set", []]. */
function setOf(value: unknown): unknown[] {
  return Array.isArray(value) && value[0] === 'set' && Array.isArray(value[1]) ? value[1] : [value]
}
const uuidOf = (value: unknown): string => (Array.isArray(value) && value[0] === 'uuid' ? String(value[1]) : '')
const stringOf = (value: unknown): string | null => (typeof value === 'string' && value !== '' ? value : null)
const numberOf = (value: unknown): number | null => (typeof value === 'number' ? value : null)
function mapOf(value: unknown): Map<string, string> {
  if (!Array.isArray(value) || value[0] !== 'map' || !Array.isArray(value[1])) return new Map()
  return new Map(value[1].map((pair: unknown) => (Array.isArray(pair) ? [String(pair[0]), String(pair[1])] : ['', ''])))
}

/** The columns each table is asked for. */
export const ovsColumns = {
  Bridge: 'name,ports,external_ids',
  Port: '_uuid,name,tag,bond_mode,interfaces',
  Interface: '_uuid,name,type,mtu',
} as const

export function parseOvs(texts: Record<keyof typeof ovsColumns, string>): OvsBridge[] {
  const interfaces = new Map(
    rowsOf(texts.Interface).map(row => [
      uuidOf(row._uuid),
      { name: stringOf(row.name) ?? '', type: stringOf(row.type) ?? '', mtu: numberOf(setOf(row.mtu)[0]) },
    ]),
  )
  const ports = new Map(
    rowsOf(texts.Port).map(row => [
      uuidOf(row._uuid),
      {
        name: stringOf(row.name) ?? '',
        tag: numberOf(setOf(row.tag)[0]),
        bondMode: stringOf(setOf(row.bond_mode)[0]),
        interfaces: setOf(row.interfaces).flatMap(one => interfaces.get(uuidOf(one)) ?? []),
      },
    ]),
  )
  return rowsOf(texts.Bridge).map(row => ({
    name: stringOf(row.name) ?? '',
    ports: setOf(row.ports).flatMap(one => ports.get(uuidOf(one)) ?? []),
    description: mapOf(row.external_ids).get('understudy-description') ?? '',
  }))
}
