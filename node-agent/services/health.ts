import { request as httpRequest } from 'node:http'
import { request as httpsRequest } from 'node:https'
import { connect } from 'node:net'
import type { HealthConfig } from '../config-services.ts'
import { exec } from '../exec.ts'

/** One look at a service: '' when it is well, else why it is not. Takes `timeoutMs` at most. */
export function checkHealth(health: HealthConfig, env: Record<string, string>): Promise<string> {
  if ('command' in health) return checkCommand(health.command, { limitMs: health.timeoutMs, env })
  if ('tcp' in health) return checkTcp(health.tcp, health.timeoutMs)
  return checkHttp(health.http, health.timeoutMs)
}

async function checkCommand(
  argv: readonly string[],
  options: { limitMs: number; env: Record<string, string> },
): Promise<string> {
  const result = await exec(argv, options)
  return result.ok ? '' : result.why
}

/** Connecting is enough: what the service says is the business of a command or an HTTP check. */
function checkTcp(target: string, timeoutMs: number): Promise<string> {
  const at = target.lastIndexOf(':')
  const host = target.slice(0, at).replace(/^\[|\]$/g, '')
  return new Promise(resolve => {
    const socket = connect({ host, port: Number(target.slice(at + 1)) })
    const end = (why: string): void => {
      socket.destroy()
      resolve(why)
    }
    socket.setTimeout(timeoutMs, () => end(`${target} did not answer within ${timeoutMs} ms`))
    socket.on('connect', () => end(''))
    socket.on('error', error => end(`${target}: ${error.message}`))
  })
}

/** Any answer below 400 is well; the body is not read. */
function checkHttp(url: string, timeoutMs: number): Promise<string> {
  const request = url.startsWith('https:') ? httpsRequest : httpRequest
  return new Promise(resolve => {
    const sent = request(url, { agent: false, signal: AbortSignal.timeout(timeoutMs) }, response => {
      const status = response.statusCode ?? 0
      response.destroy()
      resolve(status > 0 && status < 400 ? '' : `${url} answered ${status}`)
    })
    sent.on('error', error => {
      resolve(
        error.name === 'AbortError' || error.name === 'TimeoutError'
          ? `${url} did not answer within ${timeoutMs} ms`
          : `${url}: ${error.message}`,
      )
    })
    sent.end()
  })
}
