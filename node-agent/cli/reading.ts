import { InvalidArgumentError } from 'commander'

/** What verbs that show something have in common. */

export const jsonOption = ['--json', 'print JSON'] as const

export const print = (text: string): void => {
  process.stdout.write(text)
}
export const printJson = (value: unknown): void => print(`${JSON.stringify(value, null, 2)}\n`)

/** As a person reads it, or as a program does. */
export function printAs<T>({ json }: { json?: boolean }, value: T, show: (value: T) => string): void {
  if (json === true) printJson(value)
  else print(show(value))
}

export function seconds(text: string): number {
  const value = Number(text)
  if (Number.isInteger(value) && value >= 1 && value <= 3600) return value
  throw new InvalidArgumentError('give whole seconds from 1 to 3600.')
}
