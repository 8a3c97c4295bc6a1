/**
 * The topic tree: `understudy/v1/{organisation}/{host}/{dn|up}/{channel}`. The pair is not in it: a host keeps its topics
 * through set-up, replacement and unpairing, and every document says which pair it means.
 *
 * A client's certificate names two levels at once, so that a broker can bind it to its organisation as well (Mosquitto:
 * `pattern … %u`, in which a name may hold a slash). Whoever reads compares both with the registry all the same, and trusts
 * signatures alone.
 */
export const topicRoot = 'understudy/v1'

export const downChannels = ['trust', 'desired', 'fresh', 'cmd'] as const
export const upChannels = ['ack', 'report', 'hb', 'presence', 'evt'] as const
export type DownChannel = (typeof downChannels)[number]
export type UpChannel = (typeof upChannels)[number]

interface HostAddress {
  organisation: string
  host: string
}

export const downTopic = ({ organisation, host }: HostAddress, channel: DownChannel): string =>
  `${topicRoot}/${organisation}/${host}/dn/${channel}`
export const upTopic = ({ organisation, host }: HostAddress, channel: UpChannel): string =>
  `${topicRoot}/${organisation}/${host}/up/${channel}`

/** The common name in a client certificate, which a broker takes as its user's name. */
export const brokerName = {
  host: ({ organisation, host }: HostAddress): string => `${organisation}/${host}`,
  /** All tooling of an organisation: what it may command is decided by the keys that sign, not by the broker. */
  tooling: ({ organisation }: Pick<HostAddress, 'organisation'>): string => organisation,
}

const idLevel = '[0-9a-hjkmnp-tv-z]{26}'
const upPattern = new RegExp(`^${topicRoot}/(${idLevel})/(${idLevel})/up/(${upChannels.join('|')})$`)

/** null: no topic a host may write. */
export function parseUpTopic(topic: string): (HostAddress & { channel: UpChannel }) | null {
  const match = upPattern.exec(topic)
  if (match === null) return null
  return { organisation: match[1]!, host: match[2]!, channel: match[3] as UpChannel }
}

/** How each channel travels; the AsyncAPI document is made from this table. */
export const channels = {
  trust: {
    direction: 'down',
    qos: 1,
    retain: true,
    expirySeconds: null,
    summary: 'Who may sign what; signed by the root',
  },
  desired: {
    direction: 'down',
    qos: 1,
    retain: true,
    expirySeconds: null,
    summary: 'The whole desired document of the host, signed',
  },
  fresh: {
    direction: 'down',
    qos: 1,
    retain: true,
    expirySeconds: 86_400,
    summary: 'Which desired document is the newest, signed hourly',
  },
  cmd: { direction: 'down', qos: 1, retain: false, expirySeconds: 60, summary: 'One command, signed, for one use' },
  ack: {
    direction: 'up',
    qos: 1,
    retain: false,
    expirySeconds: 86_400,
    summary: 'What became of a command, signed by the host',
  },
  report: {
    direction: 'up',
    qos: 1,
    retain: true,
    expirySeconds: 86_400,
    summary: 'The whole report, on change and every thirty seconds; signed by the host',
  },
  hb: {
    direction: 'up',
    qos: 0,
    retain: false,
    expirySeconds: 30,
    summary: 'Every ten seconds: alive, role, epoch; with a MAC that the control plane alone can check',
  },
  presence: {
    direction: 'up',
    qos: 1,
    retain: true,
    expirySeconds: null,
    summary: 'online, or offline by the last will: a hint, never a fact',
  },
  evt: {
    direction: 'up',
    qos: 1,
    retain: false,
    expirySeconds: 604_800,
    summary: 'Events as they happen; signed by the host. From its spool on disk they come by HTTPS',
  },
} as const satisfies Record<
  DownChannel | UpChannel,
  { direction: 'down' | 'up'; qos: 0 | 1; retain: boolean; expirySeconds: number | null; summary: string }
>
