/** The part of the runtime's module that we use (Cloudflare, "TCP sockets"). */
declare module 'cloudflare:sockets' {
  export function connect(
    address: { hostname: string; port: number },
    options: { secureTransport: 'on' | 'off' | 'starttls'; allowHalfOpen: boolean },
  ): {
    readable: ReadableStream<Uint8Array>
    writable: WritableStream<Uint8Array>
    close: () => Promise<void>
  }
}
