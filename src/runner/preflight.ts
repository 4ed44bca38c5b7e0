/** Checks of a run that need no request to Consul. */
import { constants } from 'node:os';
import { RunlockError } from '../errors.ts';
import { deadAfterMs } from '../lock/lease-state.ts';
import { formatAge } from '../text/age.ts';
import { changedVariables, checkWords, findCommand } from '../process/program.ts';
import type { ExecDeps, ExecOptions, GroupChoice } from './options.ts';
import { chooseLauncher } from '../process/launcher.ts';
import type { Launcher } from '../process/launcher.ts';

/**
 * @returns where the command was found.
 * @throws RunlockError `usage`, `not-found`, `not-executable`.
 */
export function checkRun(deps: ExecDeps, options: ExecOptions): string {
  for (const { hold } of options.groups) checkDeadline(hold, options);
  checkWords([options.command, ...options.args]);
  emitChanged(deps);
  return findCommand(options.command, { path: deps.env['PATH'] });
}

/** If the hold can end, a run that is cut off must be killed before that, yet survive two missed renewals. */
function checkDeadline(hold: GroupChoice['hold'], { killAfterMs, sessionTtlMs }: ExecOptions): void {
  const leftMs = deadAfterMs(hold) - killAfterMs;
  const needMs = (2 * sessionTtlMs) / 3;
  if (leftMs >= needMs) return;
  const sum = `--hold ${hold === 'none' ? 'none' : formatAge(Number(hold))}, --kill-after ${formatAge(killAfterMs)} and --session-ttl ${formatAge(sessionTtlMs)}`;
  throw new RunlockError(
    'usage',
    `${sum} leave no time for two missed renewals before the command must be killed; shorten --kill-after or --session-ttl, or lengthen --hold`,
  );
}

/** Warns only, because a command seldom reads a variable that it does not know. */
function emitChanged({ env, emit }: ExecDeps): void {
  const names = changedVariables(env);
  if (names.length > 0) emit({ event: 'variables-changed', names });
}

/**
 * Makes the command ignore the signals that runlock's caller ignores (nohup, `trap ''`, `&` in a script). Undefined:
 * the command is started directly. Logs the signals that the command should ignore but will not.
 */
export function launcherFor(
  { signals: { ignored }, env, emit }: ExecDeps,
  command: string,
): Launcher | undefined {
  if (ignored.length === 0) return undefined;
  const { launcher, lost } = chooseLauncher(command, { ignored, env });
  if (lost.length > 0) {
    const names = lost.map(nameOf).join(', ');
    emit({ event: 'signals-not-ignored', signals: names, detail: { command } });
  }
  return launcher;
}

function nameOf(number: number): string {
  const [name] = Object.entries(constants.signals).find(([, value]) => value === number) ?? [];
  return name ?? `signal ${number}`;
}
