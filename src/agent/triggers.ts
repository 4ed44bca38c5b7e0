/** The tasks of a node that a change starts (docs/adr/0046): when one asks, a process of its own is started for it. */
import { linkOf } from '../lock/causes.ts';
import { triggerKey } from '../jobs/keys.ts';
import { failed, refused } from '../jobs/trigger-cursor.ts';
import { admit } from '../jobs/trigger.ts';
import type { Acted, Asked, Reactor } from './reactor.ts';
import { openCursors } from './stored-cursor.ts';
import type { Cursors } from './stored-cursor.ts';
import type { ReactorWays } from './reactors.ts';
import type { Trigger } from './task/trigger.ts';

/** The processes that were started for triggers, by this agent or the one before. */
export interface TriggeredRuns {
  isAlive(task: string): boolean;
  /** @param nonce the same again if the last start came to nothing. @throws what node:fs and spawn throw. */
  start(task: string, nonce: string): void;
  /** Resolves when no process for the task is alive. */
  ended(task: string, options: { readonly signal: AbortSignal }): Promise<void>;
  /** What the last one said, and how it ended; undefined: nothing is known. @param nonce that of its start. */
  lastWord(task: string, nonce: string): string | undefined;
}

interface Triggered {
  readonly task: string;
  readonly trigger: Trigger;
}

type Ways = Pick<ReactorWays, 'consul' | 'deps' | 'prefix' | 'node'> & { readonly runs: TriggeredRuns };

export function triggerReactor(ways: Ways, { task, trigger }: Triggered): Reactor {
  const { consul, prefix, node } = ways;
  const key = triggerKey(prefix, node, task);
  const cursors = openCursors(consul, prefix, node);
  return {
    name: `task ${task}`,
    key,
    on: trigger.on,
    rules: trigger,
    isPausable: true,
    act: (asked, signal) => act({ ...ways, cursors, key, task }, asked, signal),
  };
}

interface Acting extends Ways {
  readonly cursors: Cursors;
  readonly key: string;
  readonly task: string;
}

async function act(acting: Acting, asked: Asked, signal: AbortSignal): Promise<Acted> {
  const { deps, node, runs, cursors, key, task } = acting;
  const { asking, sights, place } = asked;
  const before = await cursors.read(key, { signal });
  if (!runs.isAlive(task)) {
    const admission = admit(asking, linkOf(task, node));
    if (admission.kind === 'refused') {
      const { why, causes } = admission;
      deps.emit({ event: 'trigger-refused', task, why, cause: causes.cause });
      const cursor = refused({ sights, place }, { why, ...causes }, deps.clock.now());
      await cursors.write(before, cursor, { signal });
      return { kind: 'done' };
    }
    deps.emit({ event: 'trigger-starts', task, on: asking.map(({ name }) => name) });
    runs.start(task, String(before.index));
  }
  await runs.ended(task, { signal });
  const after = await cursors.read(key, { signal });
  if (after.read.kind === 'cursor' && after.read.cursor.run !== undefined) {
    // It was killed, and has told nobody how it ended.
    const cursor = failed(after.read.cursor, 'lost', deps.clock.now());
    await cursors.write(after, cursor, { signal });
    return { kind: 'done' };
  }
  if (after.index !== before.index) return { kind: 'done' };
  const why = runs.lastWord(task, String(before.index));
  return { kind: 'failed', ...(why !== undefined && { why }) };
}
