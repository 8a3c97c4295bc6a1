/** What tests of an agent's link to the control plane share. */

export const emptySummary = {
  v: 1 as const,
  vswitches: [],
  networks: [],
  vips: [],
  initiatorName: null,
  luns: [],
  lunsLeftOut: 0,
}

/** Looks until something is found; the limit is only there so that a broken test ends. */
export const untilWithin =
  (limitS: number) =>
  async <T>(what: string, look: () => Promise<T | null | false>): Promise<T> => {
    const end = Date.now() + limitS * 1000
    for (;;) {
      const found = await look()
      if (found !== null && found !== false) return found
      if (Date.now() > end) throw new Error(`not within ${limitS} s: ${what}`)
      await new Promise(resolve => setTimeout(resolve, 50))
    }
  }
