/** iSCSI names: RFC 3720 section 3.2.6.3, the character rules of RFC 3722. */

/** RFC 3720, 3.2.6.1: a name has at most 223 bytes. */
const bytesMax = 223

/** What is wrong with it, as a rule that completes "… must …", or null. */
export function iscsiNameFault(name: string): string | null {
  if (name === '') return 'must not be empty; write it like "iqn.2026-01.example.storage:host-a"'
  if (new TextEncoder().encode(name).length > bytesMax) return `must have at most ${bytesMax} bytes (RFC 3720, 3.2.6.1)`
  if (/\s/.test(name)) return 'must not contain spaces (RFC 3722)'
  if (/[A-Z]/.test(name)) return 'must be in lower case (RFC 3722)'
  if (name.startsWith('iqn.')) return iqnFault(name)
  if (name.startsWith('eui.'))
    return /^eui\.[0-9a-f]{16}$/.test(name)
      ? null
      : 'must have 16 hexadecimal digits after "eui." (RFC 3720, 3.2.6.3.2)'
  if (name.startsWith('naa.'))
    return /^naa\.([0-9a-f]{16}|[0-9a-f]{32})$/.test(name)
      ? null
      : 'must have 16 or 32 hexadecimal digits after "naa." (RFC 3980)'
  return 'must begin with "iqn.", "eui." or "naa." (RFC 3720, 3.2.6.3)'
}

function iqnFault(name: string): string | null {
  const match = /^iqn\.(\d{4})-(\d{2})\.([^:]+)(?::(.*))?$/.exec(name)
  if (match === null)
    return 'must have a date and a domain: "iqn.yyyy-mm.domain-reversed:anything" (RFC 3720, 3.2.6.3.1)'
  const [, , month = '', domain = '', rest] = match
  if (Number(month) < 1 || Number(month) > 12)
    return `must have a month from 01 to 12, not ${month} (RFC 3720, 3.2.6.3.1)`
  const label = /^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/
  const wrong = domain.split('.').find(one => !label.test(one))
  if (wrong !== undefined) return `must have a reversed domain name after the date; "${wrong}" is no part of one`
  if (rest === '') return 'must have something after the colon, or no colon'
  // Beyond ASCII, RFC 3722 allows what its stringprep profile leaves; targets and tools differ there, so we do not.
  return rest === undefined || /^[a-z0-9.:-]+$/.test(rest)
    ? null
    : 'may contain only a-z, 0-9, "-", "." and ":" after the domain (RFC 3722)'
}

/** An initiator name for this host and nobody else: unique in the organisation, and never the other host's. */
export function initiatorNameFault(name: string, others: readonly { host: string; name: string }[]): string | null {
  const fault = iscsiNameFault(name)
  if (fault !== null) return fault
  const taken = others.find(other => other.name === name)
  return taken === undefined
    ? null
    : `must differ from the name of every other host; ${taken.host} has it, and a target would take the two for one`
}
