/** Where Consul is according to the environment, for people. Contains no secrets. */
import { getBuiltinModule } from 'node:process';
import { withoutUser } from '../errors.ts';
import { consulSettings } from './env.ts';
import type { Remote } from './codec.ts';

export interface Whereabouts {
  /** As the user wrote it, but without user and password. */
  readonly address: string;
  readonly from: 'CONSUL_HTTP_ADDR' | 'the default';
  readonly socketPath?: string;
  /** The agent's IP address and port, if the variable has an IP address and not a name. */
  readonly remote?: Remote;
  readonly tls: boolean;
  /** Whether the agent's certificate is verified. */
  readonly verify: boolean;
  /** The variable that the token comes from; undefined: there is no token. */
  readonly tokenFrom?: string;
  readonly namespace?: string;
  readonly partition?: string;
}

type Env = Readonly<Record<string, string | undefined>>;

/** Only the address, which can be told even if other variables are invalid. */
export function addressOf(env: Env): Pick<Whereabouts, 'address' | 'from'> {
  const given = env['CONSUL_HTTP_ADDR'] ?? '';
  if (given === '') return { address: '127.0.0.1:8500', from: 'the default' };
  return { address: withoutUser(given), from: 'CONSUL_HTTP_ADDR' };
}

/** @throws RunlockError `config`: a value is invalid, or a file can't be read. */
export function whereabouts(env: Env): Whereabouts {
  const { socketPath, baseUrl, tls, token, namespace, partition } = consulSettings(env);
  const remote = socketPath === undefined ? remoteOf(new URL(baseUrl)) : undefined;
  const inFile = token !== undefined && token !== env['CONSUL_HTTP_TOKEN'];
  return {
    ...addressOf(env),
    ...(socketPath !== undefined && { socketPath }),
    ...(remote && { remote }),
    tls: baseUrl.startsWith('https:'),
    verify: tls.verify,
    ...(namespace !== undefined && { namespace }),
    ...(partition !== undefined && { partition }),
    ...(token !== undefined && { tokenFrom: inFile ? 'CONSUL_HTTP_TOKEN_FILE' : 'CONSUL_HTTP_TOKEN' }),
  };
}

function remoteOf({ hostname, port, protocol }: URL): Remote | undefined {
  const address = hostname.replaceAll(/[[\]]/g, '');
  // Load node:net here, because only doctor needs it.
  if (getBuiltinModule('node:net').isIP(address) === 0) return undefined;
  return { address, port: port === '' ? (protocol === 'https:' ? 443 : 80) : Number(port) };
}
