/** How the agent of this node is, by what it says of itself, and its triggers and hooks that somebody should look at. Pure. */
import type { Entry } from '../../consul/consul.ts';
import type { AgentDocument } from '../../jobs/documents.ts';
import type { Check } from '../../output/doctor.ts';
import { faultTexts, triggerLines } from '../../output/node.ts';
import { formatAge } from '../../text/age.ts';
import { viewTriggers } from '../../view/node-triggers.ts';

const warning = (found: string, fix: string): Check => ({ check: 'agent', level: 'warning', found, fix });

type Said = Pick<AgentDocument, 'node' | 'noRequests' | 'pausedSince' | 'faults' | 'moreFaults'>;

/** @param now wall-clock milliseconds. @param isKnown whether something is said of such a file already. */
export function judgeAgent(
  { node, noRequests, pausedSince, ...files }: Said,
  { now, isKnown = () => false }: { readonly now: number; readonly isKnown?: (fault: string) => boolean },
): readonly Check[] {
  const [why = '', ...fix] = noRequests?.split('; ') ?? [];
  return [
    { check: 'agent', level: 'ok', found: `an agent of ${node} is running` },
    ...(noRequests === undefined ? [] : [warning(`the agent serves no requests: ${why}`, fix.join('; '))]),
    ...(pausedSince === undefined
      ? []
      : [
          warning(
            `the agent has been paused for ${formatAge(now - Date.parse(pausedSince))}: requests and triggers wait`,
            "run 'runlock agent resume'",
          ),
        ]),
    ...faultTexts(files)
      .filter((each) => !isKnown(each))
      .map((each) => warning(`the agent can't use ${each}`, "see 'runlock agent status' on the node")),
  ];
}

interface Triggers {
  readonly prefix: string;
  readonly node: string;
  /** Wall-clock milliseconds. */
  readonly now: number;
  /** What stands below the node's folder of triggers. */
  readonly entries: readonly Entry[];
}

/** A failure alone is none of doctor's business: it is tried again. */
export function judgeTriggers({ entries, ...at }: Triggers): readonly Check[] {
  return viewTriggers(at, entries).flatMap((trigger): Check[] => {
    if (trigger.state !== 'stuck' && trigger.state !== 'tripped') return [];
    const [text = ''] = triggerLines([trigger], at.now);
    const [found = '', ...fix] = text.split('; ');
    return [warning(found, `correct its cause; ${fix.join('; ')}`)];
  });
}
