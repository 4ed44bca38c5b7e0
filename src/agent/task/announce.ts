/** A task with its options of `exec` → what others may know of it, and whether its transactions have room. Pure. */
import { RunlockError } from '../../errors.ts';
import type { Condition } from '../../conditions/parse.ts';
import type { AgentTask } from '../../jobs/documents.ts';
import type { Hold } from '../../lock/records.ts';
import type { Setting } from '../../state/setting.ts';
import type { Task } from './definition.ts';
import { ownOutcome } from './trigger.ts';

/** What is needed of the options of `exec`. */
export interface RunChoice {
  readonly groups: readonly { readonly group: string; readonly slots: number; readonly hold: Hold }[];
  readonly when?: readonly Condition[];
  readonly publish?: readonly Setting[];
  readonly during?: readonly Setting[];
  readonly gate?: { readonly services: readonly string[] };
}

/** In the order in which their slots are taken; the first is the home of the task's jobs. */
export const groupsOf = ({
  groups,
}: {
  readonly groups: readonly { readonly group: string }[];
}): readonly string[] => [...new Set(groups.map(({ group }) => group))].sort((a, b) => (a < b ? -1 : 1));

/** Never the command: that is the node's own affair. */
export function announce(task: Task, run: RunChoice): AgentTask {
  const { name, description, allow, params, trigger, noop } = task;
  const { when = [], publish = [], during = [], groups, gate } = run;
  const kept = groups.filter(({ hold }) => hold !== 'none').map(({ slots }) => slots);
  return {
    name,
    groups: groupsOf(run),
    allow,
    params: params.map((each) => each.name),
    on: (trigger?.on ?? []).map(({ text }) => text),
    when: when.map(({ text }) => text),
    publish: [...new Set([...publish, ...during].map(({ path }) => path))],
    slots: Math.min(...groups.map(({ slots }) => slots)),
    ...(kept.length > 0 && { keptSlots: Math.min(...kept) }),
    ...(noop && { noop: true }),
    ...(gate && { services: gate.services }),
    ...(description !== undefined && { description }),
  };
}

/** Consul allows so many operations in a transaction. */
const MOST_OPERATIONS = 64;
/** What the end of a job's target, or of a trigger's run, writes besides its groups and states; and the start checks. */
const AT_END = 6;
const AT_START = 3;

/**
 * @throws RunlockError `config`: each run would start the next; or a run that is asked for, by a request or a trigger,
 * would need more operations in one transaction than Consul allows.
 */
export function checkTask({ file, allow, trigger }: Task, run: RunChoice): void {
  if (allow.length === 0 && !trigger) return;
  const groups = groupsOf(run);
  const loop = trigger && ownOutcome(trigger, groups);
  if (loop !== undefined) throw wrong(`${file}: ${loop}`);
  const { when = [], publish = [], during = [] } = run;
  const states = new Set(when.flatMap((one) => (one.kind === 'state' ? one.path : []))).size;
  const end = 6 * groups.length + publish.length + during.length + AT_END;
  const start = 2 * groups.length + states + during.length + AT_START;
  const most = Math.max(end, start);
  if (most > MOST_OPERATIONS)
    throw wrong(
      `${file}: a run that a request or a trigger asks for needs ${most} operations in one transaction, and Consul allows ${MOST_OPERATIONS}; use fewer groups, states or conditions, or leave out allow and on`,
    );
}

const wrong = (message: string) => new RunlockError('config', message);
