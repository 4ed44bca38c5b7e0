/** How the triggers of a node's tasks are doing, from their cursors. Pure. */
import type { Entry } from '../consul/consul.ts';
import { readCursor } from '../jobs/cursor.ts';
import type { Cursor } from '../jobs/cursor.ts';
import { triggerKey } from '../jobs/keys.ts';
import { STUCK } from '../jobs/trigger.ts';

/**
 * `failing`: its last runs failed, it tries again later; `stuck`: so often that somebody should look. `tripped`: it started
 * too often; it starts nothing until all its starts are left again. `refused`: its last change was led to by its own run.
 * `unknown`: `why` says why that can't be told.
 */
export type TriggerState = 'ok' | 'failing' | 'stuck' | 'tripped' | 'refused' | 'unknown';

export interface TriggerView {
  readonly task: string;
  readonly state: TriggerState;
  /** The run that it started, while that is under way. */
  readonly run?: string;
  readonly startedAt?: string;
  /** When its last good run ended. */
  readonly goodAt?: string;
  /** In a row. */
  readonly failures?: number;
  /** Not before this. */
  readonly nextTryAt?: string;
  readonly trippedAt?: string;
  /** What led to the change that it refused, each as TASK@NODE, the first cause first. */
  readonly refused?: { readonly at: string; readonly cause: readonly string[] };
  readonly why?: string;
}

/** By task. */
export function viewTriggers(prefix: string, node: string, entries: readonly Entry[]): TriggerView[] {
  const below = triggerKey(prefix, node, '');
  const stored = entries.filter(({ key }) => key.startsWith(below));
  const views = stored.map((entry) => viewTrigger(entry.key.slice(below.length), entry));
  return views.sort((a, b) => (a.task < b.task ? -1 : 1));
}

function viewTrigger(task: string, entry: Entry): TriggerView {
  const read = readCursor(entry);
  if (read.kind === 'newer') return { task, state: 'unknown', why: read.why };
  if (read.kind !== 'cursor') return { task, state: 'unknown', why: `${entry.key} holds no trigger` };
  const { cursor } = read;
  const { run, startedAt, goodAt, failures, backOffUntil, trippedAt, refused } = cursor;
  return {
    task,
    state: stateOf(cursor),
    ...(run !== undefined && { run }),
    ...(startedAt !== undefined && { startedAt }),
    ...(goodAt !== undefined && { goodAt }),
    ...(failures !== undefined && { failures }),
    ...(backOffUntil !== undefined && { nextTryAt: backOffUntil }),
    ...(trippedAt !== undefined && { trippedAt }),
    ...(refused && { refused: { at: refused.at, cause: refused.cause } }),
  };
}

function stateOf({ failures = 0, trippedAt, refused }: Cursor): TriggerState {
  if (failures >= STUCK) return 'stuck';
  if (trippedAt !== undefined) return 'tripped';
  if (failures > 0) return 'failing';
  return refused ? 'refused' : 'ok';
}
