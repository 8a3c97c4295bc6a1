import { readFileSync } from 'node:fs'
import type { Command } from '../../shared/contract/documents.ts'
import { seal, unseal } from '../../shared/sealing.ts'
import { loadHost } from '../host-file.ts'
import { enrolmentKeyOf } from '../keys/enrolment-key.ts'
import { decodeToken } from '../pair/token.ts'
import type { StatusReport } from '../report/status-report.ts'
import { readState } from '../state-file/state-file.ts'
import type { HostSettings } from './host-settings.ts'
import type { Identity } from './identity.ts'
import type { RunOutcome } from './session.ts'
import { isHeard } from './settling.ts'
import type { PairWish } from './wished-config.ts'

/**
 * Set-up from afar: the same steps as `pair init` and `pair join`, each of which can be repeated. The joining secret goes
 * from the one host to the other sealed to the key that the other enrolled with; whoever carries it can't read it.
 */
export interface SetUpContext {
  identity: Identity
  configPath: string
  settings: HostSettings
  /** The wish that this host holds for its pair; null: none has come. */
  wish: () => Promise<PairWish | null>
  status: () => Promise<StatusReport | null>
  progress: (message: string) => void
}

export async function runSetUp(command: Command, context: SetUpContext): Promise<RunOutcome> {
  try {
    const wish = await context.wish()
    if (wish === null || wish.id !== command.pair)
      return refused('the wish for this pair has not come to this host yet; resume the set-up in a moment')
    return command.verb === 'pairBegin' ? await begin(command, wish, context) : await joinIn(command, wish, context)
  } catch (error) {
    return { phase: 'failed', message: error instanceof Error ? error.message : String(error) }
  }
}

async function begin(command: Command, wish: PairWish, context: SetUpContext): Promise<RunOutcome> {
  // Whoever could put another key here would get the pair's secrets.
  if (command.args.peerSealingKey !== wish.peer.sealingKey)
    return refused('the command names another sealing key than the wish of this pair does')
  const { beginPair } = await import('../pair/set-up.ts')
  const runs = readState(loadHost(context.configPath).base.stateDir).ok
  const parts = await partsOf(wish, context)
  const enrolled = { own: await enrolmentKeyOf(context.identity.key), otherKey: wish.peer.publicKey }
  const token = await beginPair({ ...parts, enrolmentToken: witnessToken(context.configPath), enrolled })
  const sealed = await seal(token, { to: wish.peer.sealingKey, purpose: purposeOf(wish) })
  return {
    phase: 'done',
    message: runs ? 'the joining secret is told once more' : 'this host has begun the pair',
    result: { sealed },
  }
}

async function joinIn(command: Command, wish: PairWish, context: SetUpContext): Promise<RunOutcome> {
  const text = await unseal(String(command.args.sealed), { key: context.identity.sealingKey, purpose: purposeOf(wish) })
  const token = text === null ? null : decodeToken(text)
  if (token === null) return refused('the joining secret was not sealed for this host and this pair')
  const { joinPair } = await import('../pair/set-up.ts')
  const hearsOther = async (): Promise<boolean> => {
    const status = await context.status()
    return status !== null && isHeard(status)
  }
  await joinPair({ ...(await partsOf(wish, context)), token, hearsOther })
  return { phase: 'done', message: 'this host has joined; its agent copies the database' }
}

async function partsOf(wish: PairWish, { configPath, settings, progress }: SetUpContext) {
  const { prepareDatabase } = await import('../drivers/database-port.ts')
  // A host that has its store already keeps its settings: it only tells its secret once more, for another host in a lost one's place.
  const { base, config } = loadHost(configPath)
  const runs = readState(base.stateDir).ok && config !== null
  if (runs && (config.pair !== wish.name || config.node !== wish.node))
    throw new Error(
      `this host is node ${config.node} of pair ${config.pair}, and the wish is for node ${wish.node} of pair ${wish.name}`,
    )
  // Nobody gives up what is on a device from afar.
  return { config: runs ? config : await settings.adoptWhole(wish), prepareDatabase, progress, erase: null }
}

const purposeOf = (wish: PairWish): string => `understudy-join ${wish.id}`
const refused = (message: string): RunOutcome => ({ phase: 'refused', message })

/** A witness of one's own asks for it; null: none is configured. */
function witnessToken(configPath: string): string | null {
  const path = loadHost(configPath).base.control.witnessTokenFile
  return path === null ? null : readFileSync(path, 'utf8').trim()
}
