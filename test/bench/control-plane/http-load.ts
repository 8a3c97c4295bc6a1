import { Agent, request } from 'node:http'

/** Requests over kept connections, each connection one after the other. */
export interface Load {
  url: string
  connections: number
  count: number
  /** Of the request with this number. */
  make: (number: number) => { method: string; headers: Record<string, string>; body?: Uint8Array }
}

/** @returns how long each took, in ms, from its sending to the last byte of its answer. */
export async function load({ url, connections, count, make }: Load): Promise<number[]> {
  const agent = new Agent({ keepAlive: true, maxSockets: connections })
  const took: number[] = []
  let next = 0
  const one = async (): Promise<void> => {
    while (next < count) {
      const began = performance.now()
      await ask(agent, url, make(next++))
      took.push(performance.now() - began)
    }
  }
  await Promise.all(Array.from({ length: connections }, one))
  agent.destroy()
  return took
}

function ask(agent: Agent, url: string, { method, headers, body }: ReturnType<Load['make']>): Promise<void> {
  return new Promise((resolve, reject) => {
    const asked = request(
      url,
      { agent, method, headers: { ...headers, ...(body !== undefined && { 'content-length': String(body.length) }) } },
      answer => {
        let text = ''
        answer.setEncoding('utf8')
        answer.on('data', (chunk: string) => {
          text += chunk
        })
        answer.once('end', () => {
          if (answer.statusCode === 200 && !text.startsWith('{"kind":"none"')) resolve()
          else reject(new Error(`${method} ${url}: ${answer.statusCode} ${text.slice(0, 300)}`))
        })
      },
    )
    asked.once('error', reject)
    asked.end(body)
  })
}
