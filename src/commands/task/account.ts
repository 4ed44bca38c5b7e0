/** Who runs a task's command, and in which environment. */
import { spawnSync } from 'node:child_process';
import { accessSync, constants, statSync } from 'node:fs';
import { RunlockError, reasonOf } from '../../errors.ts';
import { findCommand, isText } from '../../process/program.ts';
import { visible } from '../../text/visible.ts';
import type { Task } from '../../agent/task/definition.ts';

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

/** Of libc-bin, which each Debian has: asks what the host asks (files, LDAP, …). */
const GETENT = '/usr/bin/getent';
const NO_SUCH_USER = 2;

/** @throws RunlockError `config`: it can't be looked up. */
function lookUp(user: string): Account | undefined {
  const { stdout, status } = spawnSync(GETENT, ['passwd', '--', user], {
    encoding: 'utf8',
    // The caller's variables could have it ask, or load, something else.
    env: { PATH },
    stdio: ['ignore', 'pipe', 'ignore'],
  });
  if (status === NO_SUCH_USER) return undefined;
  if (status !== 0)
    throw new RunlockError(
      'config',
      `cannot look up user ${user}: ${GETENT} failed; try '${GETENT} passwd ${user}'`,
    );
  const [name, , uid, gid, , home, shell] = stdout.trimEnd().split(':');
  if (name === undefined || uid === undefined || gid === undefined) return undefined;
  return { name, uid: Number(uid), gid: Number(gid), home: home || '/', shell: shell || '/bin/sh' };
}

/** What the loader and the C library obey, and ignore in programs that change their user (glibc, unsecvars.h). */
const OF_THE_LOADER =
  /^(?:LD_.*|GLIBC_TUNABLES|GCONV_PATH|GETCONF_DIR|HOSTALIASES|LOCALDOMAIN|LOCPATH|MALLOC_.*|NIS_PATH|NLSPATH|RESOLV_HOST_CONF|RES_OPTIONS|TZDIR)$/;

interface Becoming {
  /** The words before the command that make it the account's; undefined: it is already. */
  readonly become: readonly [string, ...string[]] | undefined;
  /** The same, without variables. */
  readonly as: Becoming['become'];
  readonly env: Env;
}

/**
 * Variables that the loader obeys are set after the change of user: before it, a library of that user's would be root's.
 * @throws RunlockError `config`
 */
export function becoming({ uid, gid, name }: Account, own: number, env: Env): Becoming {
  if (uid === own) return { become: undefined, as: undefined, env };
  try {
    accessSync(SETPRIV, constants.X_OK);
  } catch {
    throw new RunlockError('config', `cannot become user ${name}: ${SETPRIV} is missing; install util-linux`);
  }
  const later = Object.entries(env).filter(([variable]) => OF_THE_LOADER.test(variable));
  const words = later.map(([variable, value = '']) => `${variable}=${value}`);
  const as = [SETPRIV, `--reuid=${uid}`, `--regid=${gid}`, '--init-groups', '--'] as const;
  return {
    as,
    // env(1) takes whatever has a '=' for a variable, also a program's path; setpriv(1) takes it for the program.
    become: words.length > 0 ? [...as, ENV, ...words, SETPRIV, '--'] : as,
    env: Object.fromEntries(Object.entries(env).filter(([variable]) => !OF_THE_LOADER.test(variable))),
  };
}

const ENV = '/usr/bin/env';
const TEST = '/usr/bin/test';

interface Tried {
  /** The program, and what runs in its place. */
  readonly programs: readonly string[];
  readonly cwd: string;
  readonly file: string;
  readonly account: Account;
}

/**
 * Whether the account can start the program there. Only a process that is that user's can tell: root may go everywhere,
 * and would run a script that the user's shell then can't read.
 * @param as makes a process the account's; undefined: this one is.
 * @throws RunlockError `config`; `not-found`, `not-executable`: as the start would fail.
 */
export function tryAs({ programs, cwd, file, account }: Tried, as: Becoming['as']): void {
  if (!statSync(cwd, { throwIfNoEntry: false })?.isDirectory())
    throw new RunlockError('config', `${file}: cwd: ${cwd} is not a folder; make it, or correct the path`);
  const may = (access: '-x' | '-r', path: string) => mayAs(as, [access, path], { file, account });
  if (!may('-x', cwd))
    throw new RunlockError(
      'config',
      `${file}: cwd: user ${account.name} may not enter ${cwd}; name another folder, or let that user in`,
    );
  for (const program of programs) {
    // What nobody can execute, on a noexec mount too, has reasons of its own.
    findCommand(program, { path: undefined });
    // A shell has to read its script.
    if (may('-x', program) && (!isText(program) || may('-r', program))) continue;
    const what = program === programs[0] ? program : `${program} (for ${programs[0] ?? ''})`;
    throw new RunlockError(
      'not-executable',
      `cannot run ${what} as user ${account.name}: that user may not read and execute it, or not enter a folder on the way to it; correct the permissions`,
    );
  }
}

/** @throws RunlockError `config`: the process can't be made the account's. */
function mayAs(
  as: Becoming['as'],
  test: readonly string[],
  { file, account: { name } }: Pick<Tried, 'file' | 'account'>,
): boolean {
  const [first, ...words]: readonly [string, ...string[]] = as ? [...as, TEST, ...test] : [TEST, ...test];
  const tried = spawnSync(first, words, {
    env: { PATH },
    cwd: '/',
    encoding: 'utf8',
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  const { status, error, stderr } = tried;
  if (status === 0) return true;
  // test(1) says nothing when the answer is no, and setpriv(1) says why it fails.
  if (status === 1 && stderr === '') return false;
  const [said = ''] = error ? [reasonOf(error)] : stderr.trim().split('\n');
  const why = said === '' ? `${first} ended with ${status ?? 'a signal'}` : visible(said);
  throw new RunlockError(
    'config',
    `${file}: user: cannot start a process as ${name}: ${why}; root needs the capabilities CAP_SETUID and CAP_SETGID for it`,
  );
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
