import { readFileSync } from 'node:fs'

export interface SystemUser {
  uid: number
  gid: number
}

/** From /etc/passwd (passwd(5)); null: there is no such user. */
export function systemUser(name: string): SystemUser | null {
  const line = readFileSync('/etc/passwd', 'utf8')
    .split('\n')
    .find(one => one.startsWith(`${name}:`))
  const [, , uid, gid] = line?.split(':') ?? []
  return uid === undefined || gid === undefined ? null : { uid: Number(uid), gid: Number(gid) }
}

export const isRoot = (): boolean => process.getuid?.() === 0
