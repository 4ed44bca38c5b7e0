// A run that a trigger has started, by the changes of its cursor alone: what `runlock task run --triggered` sends beside its lock.
import { openCursors } from '../../src/agent/stored-cursor.ts';
import type { Trigger } from '../../src/agent/task/trigger.ts';
import { lookForNews } from '../../src/conditions/sights.ts';
import type { Consul } from '../../src/consul/consul.ts';
import { triggerKey } from '../../src/jobs/keys.ts';
import { failed, started, succeeded } from '../../src/jobs/trigger-cursor.ts';
import { next, placeOf } from '../../src/jobs/trigger.ts';
import { clock } from '../../src/platform/deps.ts';

export interface PlayedRun {
  readonly consul: Consul;
  readonly node: string;
  readonly task: string;
  readonly run: string;
  readonly rules: Trigger;
  /** Called once it has started: how it ends, and when. */
  readonly command: () => Promise<'good' | 'bad' | 'killed'>;
}

/** Until it is over, or nothing asks for it any more. */
export async function playTriggered(played: PlayedRun): Promise<void> {
  const { consul, node, task, run, rules, command } = played;
  const signal = AbortSignal.timeout(60_000);
  const cursors = openCursors(consul, 'runlock', node);
  const key = triggerKey('runlock', node, task);
  for (;;) {
    const stored = await cursors.read(key, { signal });
    if (stored.read.kind === 'newer') return;
    const place = placeOf(stored.read, rules, clock.now());
    const sights = await lookForNews({ consul, clock, prefix: 'runlock' }, rules.on, { signal });
    if (next(sights, place, rules, clock.now()).kind !== 'start') return;
    const begun = { run, sights, place };
    if (!(await cursors.write(stored, started(begun, rules, clock.now()), { signal }))) continue;
    const end = await command();
    if (end === 'killed') return;
    for (;;) {
      const now = await cursors.read(key, { signal });
      const cursor = now.read.kind === 'cursor' ? now.read.cursor : place.cursor;
      const after =
        end === 'good' ? succeeded(begun, cursor, clock.now()) : failed(cursor, 'failed', clock.now());
      if (await cursors.write(now, after, { signal })) return;
    }
  }
}
