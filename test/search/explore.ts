import { Violation } from '../simulation/checkers/check.ts'
import { type Action, after, choicesOf } from './actions.ts'
import { demandConvergence } from './converge.ts'
import { keyOf } from './key.ts'
import type { World } from './pair.ts'
import { Visited } from './visited.ts'

/**
 * Breadth first by cost: all states that can be reached at cost 1, then 2, and so on. The first violation found is the
 * cheapest. Only the states at the edge are kept; of the others there is a hash, and the way they were reached by.
 */
export interface Limits {
  wallMs: number
  states: number
}

export interface Found {
  checker: string
  message: string
  /** One line for each event and effect. */
  trace: string[]
  /** Actions on the way. */
  depth: number
  cost: number
}

export interface Report {
  states: number
  transitions: number
  /** Every state at this cost or less was seen. */
  cost: number
  /** The most actions in a row. */
  depth: number
  /** States from which everything healed: the pair became whole again. */
  healed: number
  /** States first seen at each cost. */
  levels: number[]
  /** Nothing is left to explore. */
  complete: boolean
  wallMs: number
  found: Found | null
}

const unkindCost = 8
/** It takes as long as some hundred steps, so it is tried from a sample, the same one each time. */
const healedOneIn = 400

/** A way: which of the choices in order, and at which moment of it the agent died. */
const momentsMax = 64
const codeOf = (index: number, crashAt: number): number => index * momentsMax + crashAt + 1

export const nothingYet: Report = {
  states: 0,
  transitions: 0,
  cost: 0,
  depth: 0,
  healed: 0,
  levels: [],
  complete: false,
  wallMs: 0,
  found: null,
}

export function explore(start: World, limits: Limits): Report {
  return new Search(start, limits).run()
}

interface Reached {
  world: World
  id: number
}

/**
 * A calm step costs 1. An unkind one, or a death of the agent within a calm one, costs `unkindCost`, a death within an
 * unkind one twice that. Each is taken when its cost has come: what a search never gets to costs it nothing.
 */
class Search {
  private readonly start: World
  private readonly limits: Limits
  private readonly visited = new Visited()
  private readonly parents: number[] = []
  private readonly codes: number[] = []
  private readonly depths: number[] = []
  /** States by the cost at which they were reached. */
  private readonly levels: Reached[][] = [[]]
  private readonly report: Report = { ...nothingYet, levels: [0] }
  private readonly began = performance.now()
  private cost = 0
  private steps = 0
  private over = false

  constructor(start: World, limits: Limits) {
    this.start = start
    this.limits = limits
  }

  run(): Report {
    const { levels, report } = this
    this.reach({ world: this.start, parent: 0, code: 0, cost: 0 })
    let empty = 0
    // Nothing new for as long as the dearest step costs: nothing is left.
    for (this.cost = 0; empty <= 2 * unkindCost; this.cost++) {
      for (const reached of levels[this.cost - 2 * unkindCost] ?? []) this.expand(reached, 2)
      levels[this.cost - 2 * unkindCost] = []
      for (const reached of levels[this.cost - unkindCost] ?? []) this.expand(reached, 1)
      for (const reached of levels[this.cost] ?? []) this.expand(reached, 0)
      if (this.isOver) return this.finish()
      report.cost = this.cost
      empty = (levels[this.cost] ?? []).length === 0 ? empty + 1 : 0
    }
    report.complete = true
    return this.finish()
  }

  private finish(): Report {
    return { ...this.report, wallMs: performance.now() - this.began }
  }

  private get isOver(): boolean {
    const { report, limits } = this
    this.over ||= report.found !== null || report.states >= limits.states
    if (this.steps++ % 64 === 0) this.over ||= performance.now() - this.began > limits.wallMs
    return this.over
  }

  private reach(to: { world: World; parent: number; code: number; cost: number }): void {
    const { report, parents, codes, depths, levels } = this
    const key = keyOf(to.world)
    if (!this.visited.add(key)) return
    const id = parents.length
    parents.push(to.parent)
    codes.push(to.code)
    depths.push(id === 0 ? 0 : depths[to.parent]! + 1)
    report.states++
    report.depth = Math.max(report.depth, depths[id]!)
    report.levels[to.cost] = (report.levels[to.cost] ?? 0) + 1
    levels[to.cost] ??= []
    levels[to.cost]!.push({ world: to.world, id })
    if (key.low % healedOneIn !== 0) return
    report.healed++
    demandConvergence(to.world)
  }

  /** The steps of this unkindness from one state. */
  private expand({ world, id }: Reached, unkindness: 0 | 1 | 2): void {
    if (this.isOver) return
    const mayDie = world.budget.crashes > 0
    const choices = choicesOf(world)
    for (let index = 0; index < choices.length && this.report.found === null; index++) {
      const { action, calm } = choices[index]!
      if (unkindness === (calm ? 0 : 1)) this.step(world, id, { action, index, crashAt: -1, cost: calm ? 1 : 0 })
      if (unkindness !== (calm ? 1 : 2) || !mayDie) continue
      for (let crashAt = 0; crashAt < momentsMax - 1; crashAt++) {
        if (!this.step(world, id, { action, index, crashAt, cost: 0 })) break
      }
    }
  }

  /** False: there was no such moment. */
  private step(
    world: World,
    parent: number,
    how: { action: Action; index: number; crashAt: number; cost: number },
  ): boolean {
    const code = codeOf(how.index, how.crashAt)
    try {
      const next = after(world, how.action, { crashAt: how.crashAt, log: null })
      if (how.crashAt >= next.moments) return false
      this.report.transitions++
      this.reach({ world: next.world, parent, code, cost: this.cost + how.cost })
    } catch (error) {
      if (!(error instanceof Violation)) throw error
      const way = [...wayTo(parent, this.parents, this.codes), code]
      const trace = replay(this.start, way)
      this.report.found = { checker: error.checker, message: error.message, trace, depth: way.length, cost: this.cost }
    }
    return true
  }
}

function wayTo(id: number, parents: readonly number[], codes: readonly number[]): number[] {
  const way: number[] = []
  for (let at = id; at !== 0; at = parents[at]!) way.push(codes[at]!)
  return way.reverse()
}

/** The way again, with everything that happened on it. */
function replay(start: World, way: readonly number[]): string[] {
  const log: string[] = []
  let world = start
  for (const [i, code] of way.entries()) {
    const { action } = choicesOf(world)[Math.floor(code / momentsMax)]!
    log.push(`${i + 1}.`)
    try {
      world = after(world, action, { crashAt: (code % momentsMax) - 1, log }).world
    } catch (error) {
      if (!(error instanceof Violation)) throw error
      log.push(`  ${error.checker}: ${error.message}`)
    }
  }
  return log
}
