/** The token of the requests, which somebody may rotate meanwhile: its file is read again. */
import type { ConsulSettings } from './env.ts';
import { readToken } from './env.ts';

export interface Token {
  /** What a request that is sent now has. */
  now(): string | undefined;
  /** Reads the file again. One that can't be read, or has none, changes nothing: it may be written just now. */
  reread(): void;
  /** After Consul refused `sent`: whether there is another one by now. */
  replaced(sent: string | undefined): boolean;
}

export function createToken({ token: first, tokenFile }: Pick<ConsulSettings, 'token' | 'tokenFile'>): Token {
  let token = first;
  const reread = () => {
    if (tokenFile === undefined) return;
    try {
      token = readToken({ CONSUL_HTTP_TOKEN_FILE: tokenFile }) ?? token;
    } catch {
      // What it had before may be right.
    }
  };
  return {
    now: () => token,
    reread,
    replaced: (sent) => {
      if (token === sent) reread();
      return token !== sent;
    },
  };
}
