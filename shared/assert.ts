/** A bug, not an operating error: the process must end, and the kernel then shuts the gate. */
export class AssertionError extends Error {
  override name = 'AssertionError'
}

export function assert(condition: boolean, message: string): asserts condition {
  if (!condition) throw new AssertionError(message)
}

/** Makes the compiler prove a switch exhaustive. */
export function unreachable(value: never): never {
  throw new AssertionError(`a case was forgotten: ${JSON.stringify(value)}`)
}
