/** One message to the broker, as the outbox holds it. */
export interface Publication {
  topic: string
  payload: string
  qos: 0 | 1
  retain: boolean
  /** null: it never expires. */
  expirySeconds: number | null
}

/**
 * The way to the broker. Integrity does not rest on it: what is published is signed, and agents pull the same documents.
 * `null` for a publication: the broker has it. Else a sentence, and it is tried again.
 */
export interface Publisher {
  publish(messages: readonly Publication[]): Promise<(string | null)[]>
}

/** Where there is no broker, everything travels by HTTPS: nothing waits in the outbox for one. */
export const noBroker: Publisher = { publish: async messages => messages.map(() => null) }
