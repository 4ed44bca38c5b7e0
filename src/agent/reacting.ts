/** The part of an agent that starts tasks and posts to hooks after changes: its triggers and hooks are what the files say now. */
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { triggerKey } from '../jobs/keys.ts';
import type { Deps } from '../platform/deps.ts';
import { watchFolder } from './folder-watch.ts';
import { hookReactor } from './hooks.ts';
import type { Known, TaskFiles } from './known.ts';
import type { Part } from './parts.ts';
import type { Reactor, Waits } from './reactor.ts';
import { runReactors } from './reactors.ts';
import { triggerReactor } from './triggers.ts';
import type { TriggeredRuns } from './triggers.ts';
import type { Changing } from './watched.ts';
import type { AgentWays } from './ways.ts';
import { OF_TRIGGERS } from './launch.ts';
import type { Runs } from './runs.ts';

export function reacting(ways: AgentWays): Part {
  return {
    name: 'triggers',
    run: async (signal) => {
      for (;;) {
        const { value } = ways.known.look();
        const over = new AbortController();
        const either = AbortSignal.any([signal, over.signal]);
        const reactors = reactorsOf(ways, value.files);
        const changed = untilOthers(ways.known, value.files, either);
        // Nothing to react to asks Consul for nothing.
        const working = reactors.length > 0 ? react(ways, reactors, either) : undefined;
        try {
          await Promise.race([changed, ...(working ? [working] : [])]);
        } finally {
          over.abort(new Error('the files have changed'));
          await Promise.allSettled([changed, ...(working ? [working] : [])]);
        }
        signal.throwIfAborted();
      }
    },
  };
}

function reactorsOf(ways: AgentWays, { tasks, hooks = [] }: TaskFiles): readonly Reactor[] {
  const runs = triggeredRuns(ways.runs);
  const triggers = tasks.flatMap(({ task: { name, trigger } }) =>
    trigger ? [triggerReactor({ ...ways, runs }, { task: name, trigger })] : [],
  );
  return [...triggers, ...hooks.map((hook) => hookReactor({ ...ways, ...ways.posting }, hook))];
}

/** One process for a task at a time; it is found again by its note, as that of a job. */
function triggeredRuns(runs: Runs): TriggeredRuns {
  const refOf = (task: string) => ({ principal: OF_TRIGGERS, id: task });
  return {
    isAlive: (task) => runs.isAlive(refOf(task)),
    start: (task, nonce) => runs.start({ ref: refOf(task), nonce, task, params: {}, triggered: true }),
    ended: (task, options) => runs.ended(refOf(task), options),
    lastWord: (task, nonce) => runs.lastEnd({ ref: refOf(task), nonce, task })?.text,
  };
}

const wordsOf = ({ tasks, hooks }: TaskFiles) =>
  JSON.stringify([tasks.map(({ task: { name, trigger } }) => [name, trigger]), hooks]);

/** Until the files say something else of triggers and hooks. */
async function untilOthers(known: Changing<Known>, files: TaskFiles, signal: AbortSignal): Promise<void> {
  const words = wordsOf(files);
  for (;;) {
    const { value, change } = known.look();
    if (wordsOf(value.files) !== words) return;
    await known.past(change, { signal });
  }
}

function react(ways: AgentWays, reactors: readonly Reactor[], signal: AbortSignal): Promise<never> {
  const { deps, prefix, node, known, state } = ways;
  return runReactors(
    {
      ...ways,
      isPaused: () => known.look().value.pause !== undefined,
      takeResets: () => state.takeResets().map((task) => triggerKey(prefix, node, task)),
      onChange: (ring, until) => {
        const folder = join(state.path, 'reset');
        // A folder that is not there is looked for only now and then.
        attempt(() => mkdirSync(folder, { recursive: true, mode: 0o755 }));
        void watchFolder(deps.clock, { folder, changed: ring, settleMs: 0 }, until);
        void ringAtPauses(known, ring, until);
      },
      tell: (reactor, waits) => tell(deps, reactor, waits),
    },
    reactors,
    signal,
  );
}

function attempt(write: () => void): void {
  try {
    write();
  } catch {
    // Then a reset is noticed a minute later.
  }
}

async function ringAtPauses(known: Changing<Known>, ring: () => void, signal: AbortSignal): Promise<void> {
  let before = known.look().value.pause;
  while (!signal.aborted) {
    const { value, change } = known.look();
    if (value.pause !== before) ring();
    before = value.pause;
    await known.past(change, { signal }).catch(() => undefined);
  }
}

function tell({ emit }: Deps, { name }: Reactor, waits: Waits): void {
  const [kind, task = ''] = name.split(' ');
  if (kind !== 'task' || waits.kind !== 'held') return;
  if (waits.by === 'back-off' || waits.by === 'tripped' || waits.by === 'paused')
    emit({ event: 'trigger-held', task, by: waits.by });
}
