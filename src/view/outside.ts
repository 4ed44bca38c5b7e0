/** Runs that wait without a slot, for their conditions or their gate. Pure. */
import type { Entry } from '../consul/consul.ts';
import { visible } from '../text/visible.ts';
import type { ConditionView, GateOfRunView, OutsideView } from './report.ts';
import { conditionJudge, judgeGate, lookup, waitingRun } from './waits.ts';
import type { Lookup, WaitFacts } from './waits.ts';

export interface OutsideOptions {
  readonly prefix: string;
  readonly now: number;
  readonly facts: WaitFacts;
  /** The nodes that have a run under way in a group. */
  readonly runningIn: (group: string) => readonly string[];
}

/** Views one record; undefined: its run no longer waits. @throws RunlockError `incompatible`: it can't be read. */
export type ViewOutside = (entry: Entry) => OutsideView | undefined;

export function outsideViewer({ prefix, now, facts, runningIn }: OutsideOptions): ViewOutside {
  // Made only if a run waits: most of the time none does.
  let find: Lookup | undefined;
  let judge: ReturnType<typeof conditionJudge> | undefined;
  return (entry) => {
    const run = waitingRun(prefix, entry);
    if (!run) return undefined;
    const { node, session, record } = run;
    find ??= lookup(facts.entries);
    judge ??= conditionJudge({ prefix, now, facts, find });
    const judgeOne = judge;
    const when = record.when.map((text) => judgeOne(text, record.groups));
    const others = record.gate ? record.groups.flatMap(runningIn).filter((name) => name !== node) : [];
    const gate = judgeGate(run, facts, others);
    const { since, command, groups, tries, turn, publish, during } = record;
    return {
      node,
      run: record.run,
      since,
      waitedMs: Math.max(0, now - Date.parse(since)),
      command,
      session,
      groups,
      ...(tries !== undefined && { tries }),
      when,
      gate,
      ...(turn && { turn }),
      publish,
      during,
      why: whyOf({ when, gate, ...(turn && { turn }) }),
    };
  };
}

type Waits = Pick<OutsideView, 'when' | 'gate' | 'turn'>;

/** What is still missing, each in one sentence. */
export function missingOf({ when, gate, turn }: Waits): string[] {
  return [
    ...(turn ? [turnText(turn)] : []),
    ...when.filter(({ holds }) => holds !== true).map(conditionText),
    ...gate.filter(({ open }) => open !== true).map(gateText),
  ];
}

const conditionText = ({ condition, is }: ConditionView) => `${visible(condition)}: ${is}`;
const gateText = ({ service, why }: GateOfRunView) => `gate of ${visible(service)}: ${why}`;

const turnText = ({ pid, command, groups }: NonNullable<OutsideView['turn']>) =>
  `another run of the node on its host: ${visible(command)} in ${groups.join(', ')} (pid ${pid})`;

function whyOf(wait: Waits): string {
  const missing = missingOf(wait);
  if (missing.length > 0) return missing.join('; ');
  return wait.gate.length > 0 ? 'its gate is open now' : 'its conditions are met now';
}
