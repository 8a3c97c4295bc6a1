import { run } from './run.ts'

const seed = Number(process.argv[2] ?? 1),
  n = Number(process.argv[3] ?? 1),
  text = process.argv.includes('--trace')
const bad: Record<string, number[]> = {}
let sim = 0,
  steps = 0
const t = Date.now()
const counts: Record<string, number> = {}
for (let i = 0; i < n; i++) {
  const r = run({ seed: seed + i, text })
  sim += r.simulatedMs
  steps += r.steps
  for (const [k, v] of Object.entries(r.counts)) counts[k] = (counts[k] ?? 0) + v
  if (text) console.log(r.lines!.join('\n'))
  if (r.violation) {
    const seeds = bad[r.violation.checker] ?? []
    bad[r.violation.checker] = seeds
    seeds.push(r.seed)
    if (Object.values(bad).flat().length < 12)
      console.log(
        r.seed,
        r.options.runClass,
        r.options.profile,
        r.violation.checker,
        r.violation.message.slice(0, 900),
        r.violation.at.toFixed(0),
      )
  }
}
const ms = Date.now() - t
console.log(
  n,
  'runs',
  (sim / 3600000).toFixed(2),
  'h',
  ms,
  'ms',
  `${(sim / ms).toFixed(0)}x`,
  steps,
  'steps',
  `${(steps / ms).toFixed(0)}/ms`,
)
for (const k in bad) console.log(k, bad[k]!.length, bad[k]!.slice(0, 15).join(','))
if (process.argv.includes('--cov'))
  console.log(
    Object.entries(counts)
      .sort()
      .map(([k, v]) => `${k}: ${v}`)
      .join('\n'),
  )
