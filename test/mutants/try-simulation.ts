/**
 * Runs the simulation until a checker objects, and says as one line of JSON which, where and after how many runs.
 * Preloaded with a mutant this is its trial; without one it shows that a seed by itself is innocent.
 *
 *     try-simulation.ts FIRST_SEED RUNS SECONDS
 */
import { run } from '../simulation/run.ts'

export interface SimulationVerdict {
  killed: boolean
  /** The checker that objected, and its sentence. */
  checker: string
  message: string
  seed: number
  runs: number
  simulatedHours: number
}

const [first = 1, runs = 0, seconds = 0] = process.argv.slice(2).map(Number)

function verdict(): SimulationVerdict {
  const began = performance.now()
  let simulatedMs = 0
  let done = 0
  const tell = (found: { checker: string; message: string; seed: number } | null): SimulationVerdict => ({
    killed: found !== null,
    ...(found ?? { checker: '', message: '', seed: 0 }),
    runs: done,
    simulatedHours: simulatedMs / 3_600_000,
  })
  while (done < runs && performance.now() - began < seconds * 1000) {
    const seed = first + done
    const result = run({ seed })
    done++
    simulatedMs += result.simulatedMs
    if (result.violation !== null) return tell({ ...result.violation, seed })
  }
  return tell(null)
}

process.stdout.write(`${JSON.stringify(verdict())}\n`)
