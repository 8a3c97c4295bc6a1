/** A field that can't be as it is wanted: with its value and the rule it breaks. */
export interface Fault {
  field: string
  value: string
  rule: string
}

export const showFault = ({ field, value, rule }: Fault): string => `${field} is ${JSON.stringify(value)} and ${rule}`
