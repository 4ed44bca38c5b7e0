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
  /** Resolves when systemd has heard all that was said, or after a while: what is left then would look like an unclean end. Never rejects. */
  stopping(): Promise<void>;
  /** Says again and again that the agent is alive, until `signal` aborts. Never rejects. */
  keepAlive(signal: AbortSignal): Promise<void>;
}

/** systemd-notify waits no longer for an answer. */
const HEARD_MS = 5_000;

/** Without systemd all of it does nothing. */
export function serviceManager(env: Env, clock: Pick<Clock, 'sleep'>): ServiceManager {
  const isThere = Boolean(env['NOTIFY_SOCKET']);
  let said = '';
  const unheard = new Set<Promise<void>>();
  const tell = (...words: string[]) => {
    if (!isThere) return;
    const heard = notify(env, words).then(() => void unheard.delete(heard));
    unheard.add(heard);
  };
  return {
    says: (status) => {
      const line = status.replaceAll('\n', ' ');
      if (line === said) return;
      said = line;
      tell(`--status=${line}`);
    },
    ready: () => tell('--ready'),
    stopping: async () => {
      tell('STOPPING=1');
      const isOver = new AbortController();
      const late = clock.sleep(HEARD_MS, { signal: isOver.signal }).catch(() => undefined);
      await Promise.race([Promise.all(unheard), late]);
      isOver.abort();
    },
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

/** Resolves when systemd has heard it, or could not be told. */
function notify(env: Env, words: readonly string[]): Promise<void> {
  return new Promise((resolve) => {
    const done = () => resolve();
    try {
      spawn('systemd-notify', words, { env: { ...env }, stdio: 'ignore' })
        .on('exit', done)
        .on('error', done)
        .unref();
    } catch {
      // Too many processes, or no memory: the agent's work goes on.
      done();
    }
  });
}
