/** Whether the gate's tables in the kernel are the ones we would create. */
import { attributeMap, attributes, MessageWriter, NLM_F_DUMP, textOf } from '../kernel/netlink.ts'
import { hookBody, ruleBody, setBody } from './install.ts'
import type { Nftables } from './nft.ts'
import type { TableLayout } from './ruleset.ts'

const NFTA_CHAIN_TABLE = 1
const NFTA_CHAIN_NAME = 3
const NFTA_RULE_TABLE = 1
const NFTA_RULE_CHAIN = 2
const NFTA_SET_TABLE = 1
const NFTA_SET_NAME = 2

/** One rule or set is a few hundred bytes. */
const SCRATCH_BYTES = 16 * 1024

/**
 * Compares what the kernel holds with a table's layout: chains and their hooks, each rule, each set, and the elements of
 * the sets that describe the pair. Returns the first difference as a sentence, or undefined where all is as it should be.
 */
export function tableDifference(nft: Nftables, table: TableLayout): string | undefined {
  const where = `table ${table.family} ${table.name}`
  return chainDifference(nft, table, where) ?? setDifference(nft, table, where) ?? ruleDifference(nft, table, where)
}

function chainDifference(nft: Nftables, table: TableLayout, where: string): string | undefined {
  const held = listOf(nft, table, 'getChain', NFTA_CHAIN_TABLE)
  const names = held.map(chain => textOf(attributeMap(chain).get(NFTA_CHAIN_NAME)))
  const extra = names.find(name => !table.chains.some(chain => chain.name === name))
  if (extra !== undefined) return `${where} has a chain ${extra} that is not ours`
  for (const chain of table.chains) {
    const body = held[names.indexOf(chain.name)]
    if (body === undefined) return `${where} lacks chain ${chain.name}`
    const { hook } = chain
    if (
      hook !== undefined &&
      !includes(
        body,
        encoded(w => hookBody(w, hook, table.family)),
      )
    ) {
      return `chain ${chain.name} of ${where} hangs at another hook`
    }
  }
  return undefined
}

function setDifference(nft: Nftables, table: TableLayout, where: string): string | undefined {
  const held = listOf(nft, table, 'getSet', NFTA_SET_TABLE)
  for (const set of table.sets) {
    const body = held.find(candidate => textOf(attributeMap(candidate).get(NFTA_SET_NAME)) === set.name)
    if (body === undefined) return `${where} lacks set ${set.name}`
    if (
      !includes(
        body,
        encoded(w => setBody(w, set)),
      )
    )
      return `set ${set.name} of ${where} is of another type`
    if (set.type === 'flag') continue
    const keys = nft
      .listElements({ family: table.family, table: table.name, set: set.name })
      .map(e => e.key.toString('hex'))
    const wanted = set.elements.map(element => element.key.toString('hex'))
    if (keys.toSorted().join() !== wanted.toSorted().join()) return `set ${set.name} of ${where} has other elements`
  }
  return undefined
}

function ruleDifference(nft: Nftables, table: TableLayout, where: string): string | undefined {
  const held = listOf(nft, table, 'getRule', NFTA_RULE_TABLE)
  for (const chain of table.chains) {
    const rules = held.filter(rule => textOf(attributeMap(rule).get(NFTA_RULE_CHAIN)) === chain.name)
    if (rules.length !== chain.rules.length) {
      return `chain ${chain.name} of ${where} has ${rules.length} rules in place of ${chain.rules.length}`
    }
    for (const [i, rule] of chain.rules.entries()) {
      if (
        !includes(
          rules[i]!,
          encoded(w => ruleBody(w, rule)),
        )
      )
        return `rule ${i + 1} of chain ${chain.name} of ${where} differs`
    }
  }
  return undefined
}

/** The attributes of every object of one kind in the table. */
function listOf(
  nft: Nftables,
  table: TableLayout,
  type: 'getChain' | 'getSet' | 'getRule',
  tableAttribute: number,
): Buffer[] {
  const answer = nft.get({ type, family: table.family, flags: NLM_F_DUMP }, w => w.text(tableAttribute, table.name))
  const bodies = (answer?.messages ?? []).map(message => message.body.subarray(4))
  return bodies.filter(body => textOf(attributeMap(body).get(tableAttribute)) === table.name)
}

function encoded(content: (w: MessageWriter) => void): Buffer {
  const w = new MessageWriter(SCRATCH_BYTES).begin({ type: 0, flags: 0, seq: 0 })
  content(w)
  return w.end().bytes().subarray(16)
}

/** Whether `held` has every attribute of `wanted`, in the same order among those of one type; the kernel adds others. */
export function includes(held: Buffer, wanted: Buffer): boolean {
  const byType = new Map<number, Buffer[]>()
  for (const { type, data } of attributes(held)) byType.set(type, [...(byType.get(type) ?? []), data])
  const seen = new Map<number, number>()
  for (const { type, data, nested } of attributes(wanted)) {
    const index = seen.get(type) ?? 0
    seen.set(type, index + 1)
    const other = byType.get(type)?.[index]
    if (other === undefined) return false
    if (nested ? !includes(other, data) : !other.equals(data)) return false
  }
  for (const [type, count] of seen) if (byType.get(type)?.length !== count) return false
  return true
}
