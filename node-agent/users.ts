import { exec } from './exec.ts'

/** id(1) asks whatever the host has: files, LDAP, systemd. */
const idLimitMs = 5000

/** The numbers of a system user; null if there is none of that name. */
export async function lookUpUser(name: string): Promise<{ uid: number; gid: number } | null> {
  const ids = await Promise.all(['-u', '-g'].map(flag => exec(['id', flag, '--', name], { limitMs: idLimitMs })))
  const [uid, gid] = ids.map(found => (found.ok ? Number(found.stdout) : Number.NaN))
  if (uid === undefined || gid === undefined || Number.isNaN(uid) || Number.isNaN(gid)) return null
  return { uid, gid }
}
