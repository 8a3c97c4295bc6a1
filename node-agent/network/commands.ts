/** The programs that change networks, as words: nothing goes through a shell. */

export const ip = (...words: readonly string[]): string[] => ['ip', ...words]

/** Without a time limit ovs-vsctl waits for a dead ovs-vswitchd for ever. */
export const ovs = (...words: readonly string[]): string[] => ['ovs-vsctl', '--timeout=10', ...words]

export type FamilyOption = '-4' | '-6'
export const familyOf = (address: string): FamilyOption => (address.includes(':') ? '-6' : '-4')
