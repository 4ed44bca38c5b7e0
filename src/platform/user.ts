/** Names the person who runs this, for users who find their group frozen or their run evicted. */
import { execFileSync } from 'node:child_process';

export interface Person {
  readonly env: Readonly<Record<string, string | undefined>>;
  /** Default: the password database. Throws if the user is not in it, as in many containers. */
  readonly userName?: () => string;
  readonly uid: number | undefined;
  readonly host: string;
}

/**
 * `user@host`. With sudo(8) and doas(1), names the person who typed the command, because asking root why is no use. The
 * name proves nothing: any client that may write the key may write any name into it.
 */
export function operatorName({ env, userName = ownName, uid, host }: Person): string {
  const person = [env['SUDO_USER'], env['DOAS_USER']].find((name) => name && name !== 'root');
  return `${person ?? accountName({ userName, uid })}@${host}`;
}

/** Uses id(1), because Bun's own function returns the variable USER. */
function ownName(): string {
  return execFileSync('id', ['-un'], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] }).trim();
}

function accountName({ userName, uid }: Required<Pick<Person, 'userName'>> & Pick<Person, 'uid'>): string {
  try {
    return userName();
  } catch {
    return uid === undefined ? 'unknown' : `uid-${uid}`;
  }
}
