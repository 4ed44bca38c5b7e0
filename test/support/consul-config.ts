// What a test's Consul agent is told: addresses of its own, certificates, the configuration file.
import { randomInt } from 'node:crypto';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { createServer } from 'node:net';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { execa } from 'execa';
import type { Endpoint } from './consul-api.ts';

export interface AgentOptions {
  /** The node's name. Default: `node-1`, `node-2`, … in the order of starting. */
  readonly name?: string;
  /** Default policy deny, with a management token. */
  readonly acl?: boolean;
  /** HTTPS with a certificate authority of its own, plain HTTP beside it unless `httpsOnly`. */
  readonly tls?: boolean | { readonly verifyIncoming?: boolean; readonly httpsOnly?: boolean };
  /** Listens on a Unix socket too; `env` then names that one. */
  readonly unixSocket?: boolean;
  /** Keeps its data over a restart. Without it the agent is a `-dev` one, which starts faster and forgets. */
  readonly durable?: boolean;
  /** Timing of elections: 1 is fast. Default 1 for a single agent, Consul's own (5) for a cluster. */
  readonly raftMultiplier?: number;
  /** Goes over what is written into the agent's configuration file, key by key. */
  readonly config?: Readonly<Record<string, unknown>>;
}

export interface Ports {
  readonly http: number;
  readonly https: number;
  readonly server: number;
  readonly serf: number;
}

/** Names of PEM files. The certificate is good for a server and for a client. */
export interface TlsFiles {
  readonly ca: string;
  readonly cert: string;
  readonly key: string;
}

export type Role = 'dev' | 'server' | 'client';

/** All that a start needs; a restart uses the very same. */
export interface Plan {
  readonly name: string;
  readonly role: Role;
  readonly host: string;
  readonly ports: Ports;
  readonly folder: string;
  readonly options: AgentOptions;
  readonly managementToken: string | undefined;
  readonly tls: TlsFiles | undefined;
  /** `host:port` of the servers' gossip. */
  readonly join: readonly string[];
  readonly servers: number;
}

/** The first three bytes of a loopback network that hardly anyone else uses. */
export function randomBlock(): string {
  return `127.${randomInt(1, 255)}.${randomInt(0, 256)}`;
}

/** Ports that the kernel calls free on that address. Someone may still be quicker: the start is then retried. */
export async function freePorts(host: string): Promise<Ports> {
  const servers = [0, 1, 2, 3].map(() => createServer().listen(0, host));
  await Promise.all(servers.map((server) => once(server, 'listening')));
  const [http = 0, https = 0, server = 0, serf = 0] = servers.map((s) => (s.address() as AddressInfo).port);
  await Promise.all(servers.map((s) => new Promise((resolve) => s.close(resolve))));
  return { http, https, server, serf };
}

/** A certificate authority and one certificate for `host`, made by the consul program itself. */
export async function createTls(consul: string, folder: string, host: string): Promise<TlsFiles> {
  await execa(consul, ['tls', 'ca', 'create'], { cwd: folder });
  await execa(consul, ['tls', 'cert', 'create', '-server', `-additional-ipaddress=${host}`], { cwd: folder });
  const ca = join(folder, 'consul-agent-ca.pem');
  const name = join(folder, 'dc1-server-consul-0');
  return { ca, cert: `${name}.pem`, key: `${name}-key.pem` };
}

export function tlsOptions(options: AgentOptions): { verifyIncoming: boolean; httpsOnly: boolean } {
  const given = typeof options.tls === 'object' ? options.tls : {};
  return { verifyIncoming: given.verifyIncoming ?? false, httpsOnly: given.httpsOnly ?? false };
}

export function socketPath(folder: string): string {
  return join(folder, 'http.sock');
}

function listeners({ host, ports, options, tls, folder }: Plan): Record<string, unknown> {
  const { httpsOnly } = tlsOptions(options);
  return {
    bind_addr: host,
    client_addr: host,
    addresses: { http: options.unixSocket ? `${host} unix://${socketPath(folder)}` : host },
    ports: {
      http: httpsOnly ? -1 : ports.http,
      https: tls === undefined ? -1 : ports.https,
      server: ports.server,
      serf_lan: ports.serf,
      serf_wan: -1,
      dns: -1,
      grpc: -1,
    },
  };
}

function security({ managementToken, tls, options }: Plan): Record<string, unknown> {
  return {
    ...(managementToken === undefined
      ? {}
      : {
          acl: {
            enabled: true,
            default_policy: 'deny',
            tokens: { master: managementToken, agent: managementToken },
          },
        }),
    ...(tls === undefined
      ? {}
      : {
          ca_file: tls.ca,
          cert_file: tls.cert,
          key_file: tls.key,
          verify_incoming_https: tlsOptions(options).verifyIncoming,
        }),
  };
}

function membership({ role, join: addresses, servers, folder, options }: Plan): Record<string, unknown> {
  const multiplier = options.raftMultiplier;
  if (role === 'dev') return {};
  return {
    data_dir: join(folder, 'data'),
    server: role === 'server',
    ...(role === 'server' ? { bootstrap_expect: servers } : {}),
    ...(addresses.length === 0 ? {} : { retry_join: addresses, retry_interval: '1s' }),
    ...(multiplier === undefined ? {} : { performance: { raft_multiplier: multiplier } }),
  };
}

/** The agent's configuration file. */
export function configuration(plan: Plan): string {
  return JSON.stringify({
    node_name: plan.name,
    disable_update_check: true,
    // Its certificate authority costs a second at the first election.
    connect: { enabled: false },
    ...listeners(plan),
    ...security(plan),
    ...membership(plan),
    ...plan.options.config,
  });
}

/** Where the tests themselves reach the agent: by plain HTTP if it has that. */
export function endpointOf({ host, ports, options, tls, managementToken }: Plan): Endpoint {
  const secure = tls !== undefined && tlsOptions(options).httpsOnly;
  const read = (name: string) => readFileSync(name, 'utf8');
  return {
    protocol: secure ? 'https:' : 'http:',
    host,
    port: secure ? ports.https : ports.http,
    ...(managementToken === undefined ? {} : { token: managementToken }),
    ...(tls === undefined ? {} : { tls: { ca: read(tls.ca), cert: read(tls.cert), key: read(tls.key) } }),
  };
}

/** What another program needs to reach it. */
export function environment(plan: Plan, endpoint: Endpoint): Record<string, string> {
  const { tls, host, ports, options, folder, managementToken } = plan;
  const secure: Record<string, string> =
    tls === undefined ? {} : { CONSUL_HTTP_ADDR: `https://${host}:${ports.https}`, CONSUL_CACERT: tls.ca };
  const certificate: Record<string, string> =
    tls !== undefined && tlsOptions(options).verifyIncoming
      ? { CONSUL_CLIENT_CERT: tls.cert, CONSUL_CLIENT_KEY: tls.key }
      : {};
  return {
    CONSUL_HTTP_ADDR: `${endpoint.host}:${endpoint.port}`,
    ...secure,
    ...certificate,
    ...(options.unixSocket ? { CONSUL_HTTP_ADDR: `unix://${socketPath(folder)}` } : {}),
    ...(managementToken === undefined ? {} : { CONSUL_HTTP_TOKEN: managementToken }),
  };
}
