/**
 * Names and paths of a tree. A name is the bytes the kernel has, one character a byte; a path is names joined by `/`,
 * relative to the tree's root, `''` being the root itself.
 */

/** NAME_MAX of every Linux file system. */
const nameBytesMax = 255
/** PATH_MAX less what `/proc/self/fd/…` needs. Longer paths exist, and are said to be beyond what is replicated. */
export const pathBytesMax = 4000
/** Our own folder at the root of a tree that is a mount of its own; never replicated. */
export const workFolderName = '.understudy-sync'

/** A name that stays in its directory. */
export function isName(name: string): boolean {
  return (
    name.length > 0 && name.length <= nameBytesMax && name !== '.' && name !== '..' && !/[/\0]|[^\0-\xff]/.test(name)
  )
}

/** Why a path from the other host can't be one of this tree, or null. */
export function pathFault(path: string): string | null {
  if (path.length > pathBytesMax) return `has ${path.length} bytes; ${pathBytesMax} is the most`
  if (path === '') return null
  const names = path.split('/')
  if (names[0] === workFolderName) return `lies in ${workFolderName}, which is never replicated`
  const wrong = names.find(name => !isName(name))
  return wrong === undefined ? null : `contains "${showName(wrong)}", which is not a name in a directory`
}

export const joinPath = (folder: string, name: string): string => (folder === '' ? name : `${folder}/${name}`)

export function splitPath(path: string): { folder: string; name: string } {
  const slash = path.lastIndexOf('/')
  return slash < 0 ? { folder: '', name: path } : { folder: path.slice(0, slash), name: path.slice(slash + 1) }
}

/** For people: UTF-8 where it is, other bytes and control characters as \xNN. */
export function showName(name: string): string {
  const bytes = Buffer.from(name, 'latin1')
  const text = bytes.toString('utf8')
  const faithful = Buffer.from(text, 'utf8').equals(bytes)
  return Array.from(faithful ? text : name, character => {
    const code = character.codePointAt(0)!
    const plain = code >= 0x20 && code !== 0x7f && (faithful ? code < 0x7f || code > 0x9f : code < 0x7f)
    return plain ? character : `\\x${code.toString(16).padStart(2, '0')}`
  }).join('')
}

/** A path as the configuration and people write it, in our form. */
export const fromText = (text: string): string => Buffer.from(text, 'utf8').toString('latin1')
