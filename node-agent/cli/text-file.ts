import { readFileSync } from 'node:fs'
import { Exit } from './exit-codes.ts'

/** A small file that an operator names; "-" is standard input. @throws Exit with a sentence */
export function readTextArgument(path: string, bytesMax: number): string {
  let bytes: Buffer
  try {
    bytes = readFileSync(path === '-' ? 0 : path)
  } catch (error) {
    throw new Exit('usage', `${path} can't be read: ${error instanceof Error ? error.message : String(error)}`)
  }
  if (bytes.length > bytesMax)
    throw new Exit('usage', `${path} is larger than ${bytesMax} bytes: is it the right file?`)
  return bytes.toString('utf8')
}
