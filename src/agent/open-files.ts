/**
 * The agent's own soft limit of open files. Node and Bun raise it to the hard one (src/process/contain.ts); what the agent
 * starts, and the commands below it, would have it as well.
 */
import { execFile } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { pid } from 'node:process';
import { ROOMY, callersSoftLimit, setSoft } from '../process/contain.ts';

/** Ample for systemctl, which asks over a socket. */
const SYSTEMCTL_MS = 5_000;

/** Gives the agent back the limit that it was started with, if that is known and enough for it. Never rejects. */
export async function takeOwnLimit(env: Readonly<Record<string, string | undefined>>): Promise<void> {
  // systemd's own hard limit is another, so its unit has to be asked.
  const soft = callersSoftLimit() ?? (env['INVOCATION_ID'] ? await softOfUnit() : undefined);
  if (soft !== undefined && soft >= ROOMY) await setSoft(pid, soft);
}

/** Undefined: this process is not a service's, or its limit has no end. */
async function softOfUnit(): Promise<number | undefined> {
  const unit = unitIn(readOwnCgroup());
  if (unit === undefined) return undefined;
  const args = ['show', '--property=LimitNOFILESoft', '--value', unit];
  const said = await new Promise<string>((resolve) =>
    execFile('systemctl', args, { timeout: SYSTEMCTL_MS }, (error, stdout) => resolve(error ? '' : stdout)),
  );
  return /^\d{1,15}\n$/.test(said) ? Number(said) : undefined;
}

/** The service that a process is of. @param cgroup its /proc/PID/cgroup. */
export function unitIn(cgroup: string): string | undefined {
  const [, unit] = /^(?:0:|\d+:name=systemd):\/(?:.*\/)?([^/\n]+\.service)$/m.exec(cgroup) ?? [];
  return unit;
}

function readOwnCgroup(): string {
  try {
    return readFileSync('/proc/self/cgroup', 'utf8');
  } catch {
    return '';
  }
}
