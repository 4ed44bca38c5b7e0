/** `runlock thaw`: ends the freeze of a group. */
import type { Consul } from '../../consul/consul.ts';
import type { Deps } from '../../platform/deps.ts';
import { RunlockError, assertNever, isRunlockError } from '../../errors.ts';
import { hint } from '../../text/suggested-command.ts';
import { formatAge, momentText } from '../../text/age.ts';
import { visible } from '../../text/visible.ts';
import type { FreezeView } from '../../view/report.ts';
import { leftOf } from '../../lock/records.ts';
import { changeFreeze, readFreeze } from '../../lock/freeze.ts';
import { freezeKeys, parseKey } from '../../lock/keys.ts';
import { thaw as thawing } from '../../lock/transactions.ts';
import { nameOf, toView } from '../freeze/freeze.ts';
import type { Describing } from '../freeze/freeze.ts';

export interface ThawOptions {
  readonly prefix: string;
  /** The group; '' for the root. */
  readonly at: string;
}

export type ThawResult =
  | {
      readonly kind: 'thawed';
      /** The freeze that was ended. */
      readonly freeze: FreezeView;
      /** The nearest freeze above, which still stops the group. */
      readonly above?: FreezeView;
      /** Freezes that may stop the group too, but could not be read. */
      readonly problems: readonly string[];
    }
  | {
      readonly kind: 'not-frozen';
      readonly at: string;
      /** Set: the freeze had ended already, but its record was still there. */
      readonly ended?: FreezeView;
      readonly problems: readonly string[];
    };

type Effects = { consul: Consul; deps: Deps };

/**
 * Ends the group's own freeze.
 * @throws RunlockError `refused`: only a group above is frozen; `incompatible`: the stored freeze can't be read.
 */
export async function thaw(
  { consul, deps }: Effects,
  { prefix, at }: ThawOptions,
  signal: AbortSignal,
): Promise<ThawResult> {
  const [key = ''] = freezeKeys(prefix, at);
  const target = { consul, deps, prefix, key, at, signal };
  const before = await changeFreeze(target, {
    look: () => readFreeze(target, 'write'),
    steps: (seen) => seen && thawing(key, seen.index),
    // If the key is gone or was created anew, the freeze that was read is gone.
    isDone: (now, seen) => now?.createIndex !== seen?.createIndex,
  });
  const { frozen: above, problems } = await readAbove({ consul, deps }, { prefix, at }, signal);
  const own = before && toView(at, before.freeze);
  if (own && leftOf(own, deps.clock.earliest()) > 0)
    return { kind: 'thawed', freeze: own, ...(above && { above }), problems };
  if (above) throw frozenAbove(at, above, { prefix, now: deps.clock.now() });
  return { kind: 'not-frozen', at, ...(own && { ended: own }), problems };
}

interface Above {
  readonly frozen?: FreezeView;
  readonly problems: readonly string[];
}

/** The nearest freeze above the group. Reports unreadable ones, because they may stop the group too. */
async function readAbove(
  { consul, deps }: Effects,
  { prefix, at }: ThawOptions,
  signal: AbortSignal,
): Promise<Above> {
  const problems: string[] = [];
  for (const key of freezeKeys(prefix, at).slice(1)) {
    const seen = await readFreeze({ consul, key, signal }, 'read').catch((error: unknown) => {
      if (!isRunlockError(error, 'forbidden', 'incompatible')) throw error;
      problems.push(error.message);
    });
    if (!seen || leftOf(seen.freeze, deps.clock.earliest()) <= 0) continue;
    return { frozen: toView(parseKey(prefix, key)?.group ?? '', seen.freeze), problems };
  }
  return { problems };
}

function frozenAbove(at: string, above: FreezeView, { prefix, now }: Describing): RunlockError {
  const message = `${at} itself is not frozen, but ${standing(above, now)}; ${thawText(above, prefix)}`;
  return new RunlockError('refused', message);
}

/** Who froze what, since when, why, and until when. */
function standing({ at, by, reason, since, until }: FreezeView, now: number): string {
  const what = at === '' ? 'every group' : at;
  const end = until === undefined ? 'until thawed' : momentText(until, now);
  return `${what} was frozen ${formatAge(now - Date.parse(since))} ago by ${by} (${reason}) ${end}`;
}

function thawText({ at }: FreezeView, prefix: string): string {
  const whom = at === '' ? 'every group' : `${at} and every group below it`;
  return `to thaw ${whom}: '${hint(prefix, 'thaw', nameOf(at))}'`;
}

/** What was done, for people. */
export function describeThaw(result: ThawResult, describing: Describing): string {
  return thawLines(result, describing)
    .map((line) => `${visible(line)}\n`)
    .join('');
}

function thawLines(result: ThawResult, { prefix, now }: Describing): string[] {
  switch (result.kind) {
    case 'thawed': {
      const { freeze, above } = result;
      const since = formatAge(now - Date.parse(freeze.since));
      const done = `thawed ${nameOf(freeze.at)}, which ${freeze.by} froze ${since} ago: ${freeze.reason}`;
      return above
        ? [done, `still no new runs: ${standing(above, now)}; ${thawText(above, prefix)}`]
        : [done];
    }
    case 'not-frozen': {
      const { at, ended } = result;
      const said = `${nameOf(at)} is not frozen`;
      if (ended?.until === undefined) return [said];
      const ago = formatAge(now - Date.parse(ended.until));
      return [`${said}: the freeze by ${ended.by} (${ended.reason}) ended ${ago} ago`];
    }
    default:
      return assertNever(result);
  }
}
