import type { ConfigInput } from '../../node-agent/config.ts'

/** A host's configuration as an operator would write it. */
export const exampleConfig: ConfigInput = {
  pair: 'orders',
  node: 'a',
  stateDir: '/var/lib/understudy',
  socket: '/run/understudy/agent.sock',
  pairKeyFile: '/etc/understudy/pair.key',
  hostKeyFile: '/etc/understudy/host.key',
  peer: {
    paths: [
      { local: '10.9.0.1', peer: '10.9.0.2', port: 7400 },
      { local: '10.9.1.1', peer: '10.9.1.2', port: 7400 },
    ],
  },
  vips: [{ address: '10.9.0.100/24', interface: 'lan0' }],
  protectedPorts: [5432],
  witness: { url: 'https://10.9.0.9:7443', fingerprint: 'ab'.repeat(32) },
  postgres: {
    binDir: '/usr/lib/postgresql/15/bin',
    dataDir: '/var/lib/postgresql/15/orders',
    socketDir: '/run/understudy/postgres',
    port: 5432,
    user: 'postgres',
    mode: 'create',
  },
  services: [{ name: 'web', run: ['/usr/bin/web'], health: { http: 'http://127.0.0.1:8080/health' } }],
  uplink: { interface: 'lan0', gateway: '10.9.0.254' },
}
