/**
 * Tells systemd how the agent is, where systemd asks for it (sd_notify(3)). By `systemd-notify`, because Node.js has no
 * datagram sockets of this family.
 */
import { spawn } from 'node:child_process';
import type { Clock } from '../platform/deps.ts';

type Env = Readonly<Record<string, string | undefined>>;

export interface ServiceManager {
  /** One line for `systemctl status`. Never throws and never waits. */
  says(status: string): void;
  ready(): void;
  stopping(): void;
  /** Says again and again that the agent is alive, until `signal` aborts. Never rejects. */
  keepAlive(signal: AbortSignal): Promise<void>;
}

/** Without systemd all of it does nothing. */
export function serviceManager(env: Env, clock: Pick<Clock, 'sleep'>): ServiceManager {
  const isThere = Boolean(env['NOTIFY_SOCKET']);
  let said = '';
  const tell = (...words: string[]) => {
    if (isThere) notify(env, words);
  };
  return {
    says: (status) => {
      const line = status.replaceAll('\n', ' ');
      if (line === said) return;
      said = line;
      tell(`--status=${line}`);
    },
    ready: () => tell('--ready'),
    stopping: () => tell('STOPPING=1'),
    keepAlive: async (signal) => {
      const pauseMs = watchdogMs(env);
      if (!isThere || pauseMs === undefined) return;
      const isOver = () => signal.aborted;
      while (!isOver()) {
        await clock.sleep(pauseMs, { signal }).catch(() => undefined);
        if (!isOver()) tell('WATCHDOG=1');
      }
    },
  };
}

/** A third of what systemd waits (sd_watchdog_enabled(3)). Undefined: it does not wait for this. */
export function watchdogMs({ WATCHDOG_USEC: text = '' }: Env): number | undefined {
  return /^[1-9]\d{0,15}$/.test(text) ? Number(text) / 3_000 : undefined;
}

function notify(env: Env, words: readonly string[]): void {
  try {
    const child = spawn('systemd-notify', words, { env: { ...env }, stdio: 'ignore' });
    child.on('error', () => undefined);
    child.unref();
  } catch {
    // Too many processes, or no memory: the agent's work goes on.
  }
}
