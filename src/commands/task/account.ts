/** Who runs a task's command, and in which environment. */
import { spawnSync } from 'node:child_process';
import { accessSync, constants } from 'node:fs';
import { RunlockError } from '../../errors.ts';
import type { Task } from '../../task/definition.ts';

/** A line of the password database. */
export interface Account {
  readonly name: string;
  readonly uid: number;
  readonly gid: number;
  readonly home: string;
  readonly shell: string;
}

/** Of util-linux, which each Debian has. It becomes the command: same process, same exit status. */
const SETPRIV = '/usr/bin/setpriv';

/**
 * @throws RunlockError `config`: there is no such user; only root can run a task as another.
 */
export function accountOf(
  { user, file }: Pick<Task, 'user' | 'file'>,
  { uid }: { readonly uid: number },
): Account {
  const account = lookUp(user ?? String(uid));
  if (!account && user !== undefined)
    throw new RunlockError(
      'config',
      `${file}: user: there is no user ${user} on this host; make it, or correct the name`,
    );
  const found = account ?? { name: String(uid), uid, gid: uid, home: '/', shell: '/bin/sh' };
  if (uid !== 0 && found.uid !== uid)
    throw new RunlockError(
      'config',
      `${file}: user: only root can run a task as ${found.name}; run this as root, or with sudo -u ${found.name}`,
    );
  return found;
}

/** By getent(1), which asks what the host asks (files, LDAP, …). */
function lookUp(user: string): Account | undefined {
  const { stdout, status } = spawnSync('getent', ['passwd', '--', user], {
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'ignore'],
  });
  if (status !== 0) return undefined;
  const [name, , uid, gid, , home, shell] = stdout.trimEnd().split(':');
  if (name === undefined || uid === undefined || gid === undefined) return undefined;
  return { name, uid: Number(uid), gid: Number(gid), home: home || '/', shell: shell || '/bin/sh' };
}

/** The words before the command that make it the account's; undefined: it is already. @throws RunlockError `config` */
export function becoming(
  { uid, gid, name }: Account,
  own: number,
): readonly [string, ...string[]] | undefined {
  if (uid === own) return undefined;
  try {
    accessSync(SETPRIV, constants.X_OK);
  } catch {
    throw new RunlockError('config', `cannot become user ${name}: ${SETPRIV} is missing; install util-linux`);
  }
  return [SETPRIV, `--reuid=${uid}`, `--regid=${gid}`, '--init-groups', '--'];
}

type Env = Readonly<Record<string, string | undefined>>;

const PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';

/** Made from nothing: what the caller happens to have, tokens for Consul above all, is not the command's. */
export const freshEnvironment = ({ name, home, shell }: Account, { LANG, TERM, TZ }: Env): Env => ({
  PATH,
  HOME: home,
  USER: name,
  LOGNAME: name,
  SHELL: shell,
  LANG: LANG ?? 'C.UTF-8',
  ...(TERM !== undefined && { TERM }),
  ...(TZ !== undefined && { TZ }),
});
