/** Who runs this, for those who find their group frozen or their run evicted. */
import { execFileSync } from 'node:child_process';

export interface Person {
  readonly env: Readonly<Record<string, string | undefined>>;
  /** By the password database, unless given. Throws where it has no such user, as in many containers. */
  readonly userName?: () => string;
  readonly uid: number | undefined;
  readonly host: string;
}

/**
 * `user@host`. Behind sudo(8) and doas(1) it is the person who typed the command: nobody can ask root why. It is their
 * word, and proves nothing: whoever may write the key may write any name into it.
 */
export function operatorName({ env, userName = ownName, uid, host }: Person): string {
  const person = [env['SUDO_USER'], env['DOAS_USER']].find((name) => name && name !== 'root');
  return `${person ?? accountName({ userName, uid })}@${host}`;
}

/** Bun's own answer is whatever USER says. */
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
