/** What led to a run or to a state: a chain of tasks that were started by a change, each by the one before. Pure. */

/** Most links that are kept; of a longer chain the last. */
export const MOST_LINKS = 8;
/** A trigger starts nothing behind a longer chain. */
export const MOST_DEPTH = 8;

export interface Causes {
  /** Each `task@node`, the first cause first. */
  readonly cause: readonly string[];
  /** How many starts by a change lie behind it; at least as many as there are links. */
  readonly depth: number;
}

/** As records and states have them. Absent: no trigger has led to it. */
export type Caused = Partial<Causes>;

const LINK = /^[^\s@,]{1,64}@[^\s@,]{1,255}$/;

export const linkOf = (task: string, node: string): string => `${task}@${node}`;

/** What a document says, as far as it makes sense: the last links, and a depth that fits them. Undefined: nothing. */
export function causesOf({ cause = [], depth = 0 }: Caused): Causes | undefined {
  const links = cause.filter((link) => LINK.test(link)).slice(-MOST_LINKS);
  const deep = Math.max(links.length, depth);
  return deep === 0 ? undefined : { cause: links, depth: deep };
}

/** A change that asks for a run, with the index at which it was written. */
export interface Change extends Caused {
  readonly index: number;
}

const NOTHING: Change = { index: -1 };

/**
 * The causes of a run that these changes ask for: the links of the newest, and one start more than behind any of them.
 */
export function causesBy(changes: readonly Change[], link: string): Causes {
  const newest = changes.reduce((last, each) => (each.index >= last.index ? each : last), NOTHING);
  const depth = Math.max(0, ...changes.map((change) => causesOf(change)?.depth ?? 0)) + 1;
  return { cause: [...(causesOf(newest)?.cause ?? []), link].slice(-MOST_LINKS), depth };
}

/** Why a trigger must not start this run. Undefined: it may. */
export function loopIn({ cause, depth }: Causes): 'loop' | 'deep' | undefined {
  if (cause.slice(0, -1).includes(cause.at(-1) ?? '')) return 'loop';
  return depth > MOST_DEPTH ? 'deep' : undefined;
}

const CAUSE = 'RUNLOCK_RUN_CAUSE';
const DEPTH = 'RUNLOCK_RUN_DEPTH';

/** For the command of a run: what it sets and starts has the run's causes. */
export const toCauseVariables = (causes: Causes | undefined): Readonly<Record<string, string>> =>
  causes ? { [CAUSE]: causes.cause.join(','), [DEPTH]: String(causes.depth) } : {};

/** The causes of the run that a process is a part of. Undefined: none. */
export function causesIn(env: Readonly<Record<string, string | undefined>>): Causes | undefined {
  const depth = /^\d{1,6}$/.test(env[DEPTH] ?? '') ? Number(env[DEPTH]) : 0;
  return causesOf({ cause: (env[CAUSE] ?? '').split(','), depth });
}
