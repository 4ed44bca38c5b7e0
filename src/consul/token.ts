/** The token of the requests, which somebody may rotate meanwhile: its file is read again. */
import { readPlain } from '../platform/read-given.ts';
import { TOKEN_LIMIT, isToken } from './env.ts';
import type { ConsulSettings } from './env.ts';

export interface Token {
  /** What a request that is sent now has. */
  now(): string | undefined;
  /**
   * Reads the file again, for a moment at most. One that can't be read, has none, or is no plain file (a pipe has been read
   * already) changes nothing: it may be written just now. Never rejects. Undefined: there is no file to be read.
   */
  reread(): Promise<void> | undefined;
  /** After Consul refused `sent`: whether there is another one by now. */
  replaced(sent: string | undefined): Promise<boolean>;
}

/** A file on a mount that is dead gives no answer; the requests go on with the token that they had. */
const READ_MS = 1_000;

export function createToken({ token: first, tokenFile }: Pick<ConsulSettings, 'token' | 'tokenFile'>): Token {
  let token = first;
  let reading: Promise<void> | undefined;
  const read = async (path: string) => {
    try {
      const found = (await readPlain(path, TOKEN_LIMIT)).toString('utf8').trim();
      if (found !== '' && isToken(found)) token = found;
    } catch {
      // What it had before may be right.
    }
    reading = undefined;
  };
  const reread = () => {
    if (tokenFile === undefined) return undefined;
    // One that hangs is not joined by others: each would keep a thread.
    reading ??= read(tokenFile);
    return withinLimit(reading);
  };
  return {
    now: () => token,
    reread,
    replaced: async (sent) => {
      if (token === sent) await reread();
      return token !== sent;
    },
  };
}

async function withinLimit(reading: Promise<void>): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<void>((resolve) => (timer = setTimeout(resolve, READ_MS)));
  await Promise.race([reading, late]);
  clearTimeout(timer);
}
