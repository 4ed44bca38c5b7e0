// Each command that waits for a state: started, known to wait, known to have heard.
import { expect } from 'vitest';
import type { Agent } from './consul.ts';
import type { OwnStage } from './own-stage.ts';
import { eventually } from './processes.ts';
import type { Running } from './program.ts';

export interface Waiter {
  readonly running: Running;
  /** Resolves when it has seen that the state has another value. */
  waits(): Promise<void>;
  /** Resolves when it has told that the state has the value, and has ended as it should. */
  hears(timeoutMs?: number): Promise<void>;
}

type Stage = Pick<OwnStage, 'start'>;

/** A node runs once at a time in a group. */
let groups = 0;

/** Longer than any fault. */
const LONG = '170s';

/** Waits for `path` to be 2. It is set to something else before. */
export const WAITERS: Readonly<
  Record<string, (stage: Stage, agent: Pick<Agent, 'env'>, path: string) => Waiter>
> = {
  wait: (stage, agent, path) => {
    const running = stage.start(agent, ['wait', '-v', '--timeout', LONG, '--until', `state:${path}=2`]);
    return {
      running,
      waits: () => running.says(/does not hold/, 30_000),
      hears: () => endsWith(running, ''),
    };
  },
  'exec --when': (stage, agent, path) => {
    const when = ['--when', `state:${path}=2`, '-w', LONG];
    const group = ['-g', `waits/${(groups += 1)}`, '--node', 'web01', '--session-ttl', '10s'];
    const running = stage.start(agent, ['exec', '-v', ...group, ...when, '--', 'echo', 'ran']);
    return {
      running,
      waits: () => running.says(/waiting until --when is met/, 30_000),
      hears: () => endsWith(running, 'ran\n'),
    };
  },
  'acquire --when': (stage, agent, path) => {
    const when = ['--when', `state:${path}=2`, '-w', LONG];
    const group = ['-g', `waits/${(groups += 1)}`, '--node', 'web01', '--session-ttl', '10s'];
    const running = stage.start(agent, ['acquire', '-v', ...group, ...when]);
    return {
      running,
      waits: () => running.says(/waiting until --when is met/, 30_000),
      hears: () => endsWith(running, expect.any(String) as string),
    };
  },
  'state watch': (stage, agent, path) => {
    const running = stage.start(agent, ['state', 'watch', path]);
    const shows = (value: RegExp, timeoutMs: number) =>
      eventually(() => expect(running.stdout() + running.stderr()).toMatch(value), timeoutMs);
    return {
      running,
      waits: () => shows(/ is [^2]/, 30_000),
      hears: async (timeoutMs = 60_000) => {
        await shows(/ is 2\b/, timeoutMs);
        running.signal('SIGINT');
        expect((await running.ended).status).toBe(0);
      },
    };
  },
};

async function endsWith(running: Running, stdout: string): Promise<void> {
  const ended = await running.ended;
  expect(ended).toMatchObject({ status: 0, stdout });
}

/** One of each, and all of them wait. */
export async function startWaiters(
  stage: Stage,
  agent: Pick<Agent, 'env'>,
  path: string,
): Promise<readonly Waiter[]> {
  const waiters = Object.values(WAITERS).map((waiter) => waiter(stage, agent, path));
  for (const waiter of waiters) await waiter.waits();
  return waiters;
}

export const allHear = async (waiters: readonly Waiter[]): Promise<void> => {
  await Promise.all(waiters.map((waiter) => waiter.hears()));
};
