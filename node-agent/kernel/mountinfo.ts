/** What is mounted where: the lines of /proc/self/mountinfo (proc(5)), later mounts last. */
export interface MountLine {
  /** "major:minor" of the block device, or a number of the kernel's own. */
  device: string
  point: string
  source: string
  /** Of the file system, as the kernel writes them: separated by commas, and with its escapes. */
  options: string
}

export function mountLines(text: string): MountLine[] {
  return text.split('\n').flatMap(line => {
    const [left, right] = line.split(' - ')
    const [, , device, , point] = left?.split(' ') ?? []
    const [, source, options] = right?.split(' ') ?? []
    if (device === undefined || point === undefined) return []
    return [{ device, point: withoutEscapes(point), source: withoutEscapes(source ?? ''), options: options ?? '' }]
  })
}

/** Spaces and such stand as octal escapes there. */
export const withoutEscapes = (path: string): string =>
  path.replaceAll(/\\([0-7]{3})/g, (_, octal: string) => String.fromCharCode(Number.parseInt(octal, 8)))
