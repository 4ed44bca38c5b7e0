/** What runlock's caller ignores (nohup, `trap ''`, `&` in a script), the command ignores too. */
import { constants } from 'node:os';
import { chooseLauncher } from '../../process/launcher.ts';
import type { Launcher } from '../../process/launcher.ts';
import type { ExecDeps } from '../exec-deps.ts';

/** Undefined: the command is started directly. Tells which signals it will not ignore though it should. */
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
