interface Place {
  host: string
  port: number
}

/**
 * Where a server is, for postgres.js: it cuts a host at its first colon, and with it an IPv6 address. Lists it takes as they
 * are, which its types do not say.
 */
export const postgresPlace = ({ host, port }: Place): Place => ({ host: [host], port: [port] }) as unknown as Place
