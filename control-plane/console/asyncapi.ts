import { z } from 'zod'
import { desiredDocument } from '../../shared/contract/api/settings.ts'
import { ack, command, freshDocument, trustDocument } from '../../shared/contract/documents.ts'
import { heartbeat, presence, saidEvents, saidReport } from '../../shared/contract/report.ts'
import { channels, topicRoot } from '../../shared/contract/topics.ts'

type Channel = keyof typeof channels

/** What a channel's payload holds; of signed ones, inside the JWS. */
const payloads: Record<Channel, { schema: z.ZodType; signed: boolean }> = {
  trust: { schema: trustDocument, signed: true },
  desired: { schema: desiredDocument, signed: true },
  fresh: { schema: freshDocument, signed: true },
  cmd: { schema: command, signed: true },
  ack: { schema: ack, signed: true },
  report: { schema: saidReport, signed: true },
  hb: { schema: heartbeat, signed: false },
  presence: { schema: presence, signed: false },
  evt: { schema: saidEvents, signed: true },
}

/** The MQTT contract as an AsyncAPI 3 document, from the same schemas that check the messages. */
export function asyncApiDocument({ version }: { version: string }): object {
  const names = Object.keys(channels) as Channel[]
  return {
    asyncapi: '3.0.0',
    info: {
      title: 'Understudy: control plane and agents over MQTT 5',
      version,
      description:
        'Integrity rests on the signatures (JWS, Ed25519), never on the broker. No role is ever desired state.',
    },
    defaultContentType: 'application/json',
    channels: Object.fromEntries(
      names.map(name => [
        name,
        {
          address: `${topicRoot}/{organisation}/{host}/${channels[name].direction === 'down' ? 'dn' : 'up'}/${name}`,
          description: channels[name].summary,
          parameters: { organisation: {}, host: {} },
          messages: { [name]: { $ref: `#/components/messages/${name}` } },
        },
      ]),
    ),
    operations: Object.fromEntries(
      names.map(name => [
        `${channels[name].direction === 'down' ? 'send' : 'receive'}-${name}`,
        {
          // From the control plane's side.
          action: channels[name].direction === 'down' ? 'send' : 'receive',
          channel: { $ref: `#/channels/${name}` },
          bindings: {
            mqtt: {
              qos: channels[name].qos,
              retain: channels[name].retain,
              ...(channels[name].expirySeconds !== null && { messageExpiryInterval: channels[name].expirySeconds }),
              bindingVersion: '0.2.0',
            },
          },
        },
      ]),
    ),
    components: {
      messages: Object.fromEntries(
        names.map(name => [
          name,
          {
            contentType: payloads[name].signed ? 'application/jose+json' : 'application/json',
            summary: payloads[name].signed ? 'A flattened JWS; this is its payload' : 'As it is',
            payload: z.toJSONSchema(payloads[name].schema, { io: 'output', unrepresentable: 'any' }),
          },
        ]),
      ),
    },
  }
}
