/** The gate's tables in the kernel's language: created, taken over and deleted as steps of one transaction. */
import { assert } from '../../shared/assert.ts'
import { attributeMap, type MessageWriter, NLM_F_APPEND, NLM_F_CREATE } from '../kernel/netlink.ts'
import type { Clause, Expression, MetaKey } from './clauses.ts'
import type { Batch, Nftables } from './nft.ts'
import type { Hook, SetLayout, SetType, TableFamily, TableLayout } from './ruleset.ts'

const NFTA_TABLE_NAME = 1
const NFTA_TABLE_FLAGS = 2
const NFTA_CHAIN_TABLE = 1
const NFTA_CHAIN_NAME = 3
const NFTA_CHAIN_HOOK = 4
const NFTA_CHAIN_POLICY = 5
const NFTA_CHAIN_TYPE = 7
const NFTA_HOOK_HOOKNUM = 1
const NFTA_HOOK_PRIORITY = 2
const NFTA_HOOK_DEV = 3
const NFTA_RULE_TABLE = 1
const NFTA_RULE_CHAIN = 2
const NFTA_RULE_EXPRESSIONS = 4
const NFTA_SET_TABLE = 1
const NFTA_SET_NAME = 2
const NFTA_SET_FLAGS = 3
const NFTA_SET_KEY_TYPE = 4
const NFTA_SET_KEY_LEN = 5
const NFTA_SET_ID = 10
const NFTA_OBJ_TABLE = 1
const NFTA_OBJ_NAME = 2
const NFTA_OBJ_TYPE = 3
const NFTA_OBJ_DATA = 4
const NFTA_COUNTER_PACKETS = 2
const NFTA_LIST_ELEM = 1
const NFTA_EXPR_NAME = 1
const NFTA_EXPR_DATA = 2
const NFTA_DATA_VALUE = 1
const NFTA_DATA_VERDICT = 2

const NFT_OBJECT_COUNTER = 1
const NFT_SET_TIMEOUT = 0x10
const NF_DROP = 0
const NF_ACCEPT = 1
const NFT_JUMP = -3

/**
 * Owner: nobody but our socket may change the table. Persist: it stays when the socket is closed, and the next agent
 * takes it over. With both, another process' `nft flush ruleset` leaves it alone. Kernel 6.9 and later.
 */
export const TABLE_OWNER_PERSIST = 0x2 | 0x4

/** The table's chains see no packets. */
export const TABLE_DORMANT = 0x1

/** Key type numbers are nft's own, for listing (its datatype.h); lengths are the kernel's. */
const SET_KEYS: Record<SetType, { type: number; bytes: number }> = {
  ipv4: { type: 7, bytes: 4 },
  ipv6: { type: 8, bytes: 16 },
  port: { type: 13, bytes: 2 },
  'link-ipv4': { type: (41 << 6) | 7, bytes: 20 },
  'link-ipv6': { type: (41 << 6) | 8, bytes: 32 },
  flag: { type: 19, bytes: 4 },
}

/** Adds one table with all it holds to a transaction. `flags`: 0 or {@link TABLE_OWNER_PERSIST}. */
export function createTable(batch: Batch, table: TableLayout, flags: number): void {
  const { family, name } = table
  const step = (what: string) => `create ${what} in table ${family} ${name}`
  batch.add(step('table'), { type: 'newTable', family, flags: NLM_F_CREATE }, w => {
    w.text(NFTA_TABLE_NAME, name).be32(NFTA_TABLE_FLAGS, flags)
  })
  for (const counter of table.counters) {
    batch.add(step(`counter ${counter}`), { type: 'newObject', family, flags: NLM_F_CREATE }, w => {
      w.text(NFTA_OBJ_TABLE, name).text(NFTA_OBJ_NAME, counter).be32(NFTA_OBJ_TYPE, NFT_OBJECT_COUNTER)
      w.nest(NFTA_OBJ_DATA, () => undefined)
    })
  }
  for (const [id, set] of table.sets.entries()) {
    batch.add(step(`set ${set.name}`), { type: 'newSet', family, flags: NLM_F_CREATE }, w => {
      w.text(NFTA_SET_TABLE, name).text(NFTA_SET_NAME, set.name)
      setBody(w, set)
      w.be32(NFTA_SET_ID, id + 1)
    })
    if (set.elements.length === 0) continue
    const keys = set.elements.map(element => element.key)
    batch.addElements(step(`elements of ${set.name}`), { family, table: name, set: set.name }, keys)
  }
  for (const chain of table.chains) {
    batch.add(step(`chain ${chain.name}`), { type: 'newChain', family, flags: NLM_F_CREATE }, w => {
      w.text(NFTA_CHAIN_TABLE, name).text(NFTA_CHAIN_NAME, chain.name)
      if (chain.hook !== undefined) hookBody(w, chain.hook, family)
    })
  }
  for (const chain of table.chains) {
    for (const [i, rule] of chain.rules.entries()) {
      const flags = NLM_F_CREATE | NLM_F_APPEND
      batch.add(step(`rule ${i + 1} of chain ${chain.name}`), { type: 'newRule', family, flags }, w => {
        w.text(NFTA_RULE_TABLE, name).text(NFTA_RULE_CHAIN, chain.name)
        ruleBody(w, rule)
      })
    }
  }
}

/** The flags of a table, or undefined where it does not exist. */
export function tableFlags(nft: Nftables, table: TableLayout): number | undefined {
  const answer = nft.get({ type: 'getTable', family: table.family }, w => w.text(NFTA_TABLE_NAME, table.name))
  const body = answer?.messages[0]?.body
  return body === undefined ? undefined : (attributeMap(body, 4).get(NFTA_TABLE_FLAGS)?.readUInt32BE() ?? 0)
}

export function deleteTable(batch: Batch, table: TableLayout): void {
  const step = `delete table ${table.family} ${table.name}`
  batch.add(step, { type: 'delTable', family: table.family }, w => w.text(NFTA_TABLE_NAME, table.name))
}

/** Takes a table over that an agent before us left behind; refused while its socket lives. */
export function claimTable(batch: Batch, table: TableLayout): void {
  const step = `take over table ${table.family} ${table.name}`
  batch.add(step, { type: 'newTable', family: table.family }, w => {
    w.text(NFTA_TABLE_NAME, table.name).be32(NFTA_TABLE_FLAGS, TABLE_OWNER_PERSIST)
  })
}

/** Packets counted so far. */
export function readCounter(nft: Nftables, table: TableLayout, counter: string): number {
  const answer = nft.get({ type: 'getObject', family: table.family }, w => {
    w.text(NFTA_OBJ_TABLE, table.name).text(NFTA_OBJ_NAME, counter).be32(NFTA_OBJ_TYPE, NFT_OBJECT_COUNTER)
  })
  const body = answer?.messages[0]?.body
  const data = body === undefined ? undefined : attributeMap(body, 4).get(NFTA_OBJ_DATA)
  const packets = data === undefined ? undefined : attributeMap(data).get(NFTA_COUNTER_PACKETS)
  return packets === undefined ? 0 : Number(packets.readBigUInt64BE())
}

export function setBody(w: MessageWriter, set: SetLayout): void {
  const key = SET_KEYS[set.type]
  if (set.timeout) w.be32(NFTA_SET_FLAGS, NFT_SET_TIMEOUT)
  w.be32(NFTA_SET_KEY_TYPE, key.type).be32(NFTA_SET_KEY_LEN, key.bytes)
}

/** Hook numbers are the family's own (linux/netfilter.h, netfilter_arp.h). */
const HOOK_NUMBERS: Record<TableFamily, Partial<Record<Hook['hook'], number>>> = {
  inet: { prerouting: 0, input: 1, forward: 2, output: 3 },
  arp: { input: 0, output: 1 },
  netdev: { egress: 1 },
}

export function hookBody(w: MessageWriter, hook: Hook, family: TableFamily): void {
  const number = HOOK_NUMBERS[family][hook.hook]
  assert(number !== undefined, `the ${family} family has no hook ${hook.hook}`)
  w.nest(NFTA_CHAIN_HOOK, h => {
    h.be32(NFTA_HOOK_HOOKNUM, number).be32(NFTA_HOOK_PRIORITY, hook.priority)
    if (hook.hook === 'egress') h.text(NFTA_HOOK_DEV, hook.device)
  })
  w.be32(NFTA_CHAIN_POLICY, NF_ACCEPT).text(NFTA_CHAIN_TYPE, hook.type)
}

export function ruleBody(w: MessageWriter, rule: readonly Clause[]): void {
  w.nest(NFTA_RULE_EXPRESSIONS, list => {
    for (const clause of rule) for (const expression of clause.expressions) writeExpression(list, expression)
  })
}

/** Registers of 16 bytes; 0 is the verdict. */
const REGISTER = 1
const META_KEYS: Record<MetaKey, number> = { protocol: 1, mark: 3, iifname: 6, oifname: 7, nfproto: 15, l4proto: 16 }
const PAYLOAD_BASES = { network: 1, transport: 2 } as const
const NFT_CMP_EQ = 0
const NFT_FIB_RESULT_ADDRTYPE = 3
const NFTA_FIB_F_DADDR = 2
const NFT_CT_DST_IP = 20
const NFT_CT_DST_IP6 = 22
const IP_CT_DIR_ORIGINAL = 0
const NFT_REJECT_TCP_RST = 1
const NFT_REJECT_ICMPX_UNREACH = 2
const ICMPX_CODES = { 'port-unreachable': 1, 'host-unreachable': 2 } as const

function writeExpression(list: MessageWriter, e: Expression): void {
  const { name, data } = encode(e)
  list.nest(NFTA_LIST_ELEM, entry => {
    entry.text(NFTA_EXPR_NAME, name).nest(NFTA_EXPR_DATA, data)
  })
}

/** The attribute numbers in each case are those of the expression's own enum in linux/netfilter/nf_tables.h. */
function encode(e: Expression): { name: string; data: (w: MessageWriter) => unknown } {
  switch (e.op) {
    case 'meta':
      return { name: 'meta', data: w => w.be32(2, META_KEYS[e.key]).be32(1, REGISTER) }
    case 'payload':
      return {
        name: 'payload',
        data: w => w.be32(1, e.register).be32(2, PAYLOAD_BASES[e.base]).be32(3, e.offset).be32(4, e.bytes),
      }
    case 'mask':
      return {
        name: 'bitwise',
        data: w => {
          w.be32(1, REGISTER).be32(2, REGISTER).be32(3, e.mask.length)
          const none = e.mask.map(() => 0)
          value(w, 4, e.mask)
          value(w, 5, none)
        },
      }
    case 'equals':
      return { name: 'cmp', data: w => value(w.be32(1, REGISTER).be32(2, NFT_CMP_EQ), 3, e.value) }
    case 'lookup':
      return { name: 'lookup', data: w => w.text(1, e.set).be32(2, REGISTER) }
    case 'fib-type':
      return {
        name: 'fib',
        data: w => w.be32(1, REGISTER).be32(2, NFT_FIB_RESULT_ADDRTYPE).be32(3, NFTA_FIB_F_DADDR),
      }
    case 'original-destination': {
      const key = e.family === 4 ? NFT_CT_DST_IP : NFT_CT_DST_IP6
      return {
        name: 'ct',
        data: w =>
          w
            .be32(1, REGISTER)
            .be32(2, key)
            .attribute(3, Buffer.from([IP_CT_DIR_ORIGINAL])),
      }
    }
    case 'count':
      return { name: 'objref', data: w => w.be32(1, NFT_OBJECT_COUNTER).text(2, e.counter) }
    case 'reject': {
      if (e.how === 'tcp-reset') return { name: 'reject', data: w => w.be32(1, NFT_REJECT_TCP_RST) }
      const code = Buffer.from([ICMPX_CODES[e.how]])
      return { name: 'reject', data: w => w.be32(1, NFT_REJECT_ICMPX_UNREACH).attribute(2, code) }
    }
    case 'accept':
      return { name: 'immediate', data: w => verdict(w, NF_ACCEPT) }
    case 'drop':
      return { name: 'immediate', data: w => verdict(w, NF_DROP) }
    case 'jump':
      return { name: 'immediate', data: w => verdict(w, NFT_JUMP, e.chain) }
  }
}

function value(w: MessageWriter, type: number, bytes: readonly number[]): void {
  w.nest(type, data => data.attribute(NFTA_DATA_VALUE, Buffer.from(bytes)))
}

function verdict(w: MessageWriter, code: number, chain?: string): void {
  w.be32(1, 0).nest(2, data => {
    data.nest(NFTA_DATA_VERDICT, v => {
      v.be32(1, code)
      if (chain !== undefined) v.text(2, chain)
    })
  })
}
