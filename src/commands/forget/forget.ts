/** `runlock forget`: deletes what an unused group has left in Consul. */
import { FIRST_CONTACT, isTransient } from '../../consul/consul.ts';
import type { Consul, Entry } from '../../consul/consul.ts';
import { send } from '../../consul/txn.ts';
import { RunlockError } from '../../errors.ts';
import { groupKeys, parseKey } from '../../lock/keys.ts';
import { forgetKeys } from '../../lock/transactions.ts';
import { findUse } from '../../lock/unused.ts';
import type { GroupUse } from '../../lock/unused.ts';
import type { ForgottenGroup } from '../../output/forget.ts';
import type { Deps } from '../../platform/deps.ts';
import { hint } from '../../text/suggested-command.ts';
import { isName } from '../../text/words.ts';
import { proveFolders, proveTrees } from '../../view/sources.ts';

export interface ForgetOptions {
  readonly prefix: string;
  readonly group: string;
  readonly force: boolean;
}

interface Ways {
  readonly consul: Consul;
  readonly deps: Pick<Deps, 'clock'>;
  /** Asks the person at the terminal; undefined: there is no terminal. */
  readonly confirm: (question: string) => boolean | undefined;
}

/** Each transaction has two checks and two operations a key; Consul accepts 64 operations. */
const KEYS_AT_ONCE = 29;
/** Give up after so many tries: keys of an unused group would not change that often. */
const TRIES = 10;

/**
 * Deletes all stored keys of the group, in as many transactions as needed. Each fails if the group is in use again;
 * the keys deleted before that were not needed.
 * @throws RunlockError `refused`: the group is in use, or neither `force` nor a yes was given.
 */
export async function forget(
  ways: Ways,
  options: ForgetOptions,
  signal: AbortSignal,
): Promise<ForgottenGroup> {
  const { consul } = ways;
  const { prefix, group } = options;
  const keys = groupKeys(prefix, group);
  const rule = `key_prefix "${keys.prefix}" { policy = "write" }`;
  // A listing hides keys that the token may not read.
  await proveTrees(consul, { prefix, groups: [group] }, signal);
  await proveFolders(consul, [keys.slotPrefix, keys.queuePrefix, keys.node('')], signal);
  const gone = new Set<string>();
  const nodes = new Set<string>();
  /** Keys whose transaction has an unknown result. */
  let unsure: readonly string[] = [];
  let asked: number | undefined;
  for (let tries = 0; tries < TRIES; tries++) {
    const { use, below } = await look(ways, options, signal);
    const there = new Set(use.leftovers.map(({ key }) => key));
    unsure.filter((key) => !there.has(key)).forEach((key) => gone.add(key));
    unsure = [];
    refuseUsed(use, options, gone.size);
    use.nodes.forEach((node) => nodes.add(node));
    if (use.leftovers.length > 0) {
      asked ??= ask(ways, options, use);
      if (!options.force && asked !== use.tailIndex) throw cameMeanwhile(options);
    }
    const isDone = await removeAll(use);
    if (isDone) return { v: 1, prefix, group, forgotten: [...nodes].sort(), keys: gone.size, below };
  }
  throw new RunlockError(
    'refused',
    `the keys of ${group} keep changing; check '${hint(prefix, 'status', group)}' and try again`,
  );

  /** False: something has changed, or the result is unknown; the next look will tell. */
  async function removeAll({ leftovers, tailIndex }: GroupUse): Promise<boolean> {
    for (let from = 0; from < leftovers.length; from += KEYS_AT_ONCE) {
      const some = leftovers.slice(from, from + KEYS_AT_ONCE);
      const seen = some.map(({ key, modifyIndex }) => ({ key, index: modifyIndex }));
      try {
        const result = await send(consul, forgetKeys(keys, tailIndex, seen), { signal, rule });
        if (result.kind === 'refused') return false;
        some.forEach(({ key }) => gone.add(key));
      } catch (error) {
        if (!isTransient(error)) throw error;
        unsure = some.map(({ key }) => key);
        return false;
      }
    }
    return true;
  }
}

async function look(
  { consul, deps }: Ways,
  { prefix, group }: ForgetOptions,
  signal: AbortSignal,
): Promise<{ readonly use: GroupUse; readonly below: readonly string[] }> {
  const keys = groupKeys(prefix, group);
  const rule = `key_prefix "${keys.prefix}" { policy = "read" }`;
  const { entries } = await consul.list(keys.prefix, { ...FIRST_CONTACT, signal, rule });
  const use = findUse(entries, { prefix, group, now: deps.clock.earliest() });
  return { use, below: groupsBelow(entries, { prefix, group }) };
}

function groupsBelow(
  entries: readonly Entry[],
  { prefix, group }: { prefix: string; group: string },
): string[] {
  const groups = new Set<string>();
  for (const { key } of entries) {
    const parsed = parseKey(prefix, key);
    if (
      parsed &&
      parsed.key.kind !== 'other' &&
      parsed.group !== group &&
      parsed.group.split('/').every(isName)
    )
      groups.add(parsed.group);
  }
  return [...groups].sort();
}

function refuseUsed({ uses }: GroupUse, { prefix, group }: ForgetOptions, gone: number): void {
  if (uses.length === 0) return;
  const done = gone === 0 ? 'nothing was deleted' : 'only some keys were deleted';
  const shown = uses.slice(0, MOST_USES).join('; ');
  const more =
    uses.length > MOST_USES ? `; and ${(uses.length - MOST_USES).toLocaleString('en-US')} more` : '';
  throw new RunlockError(
    'refused',
    `${group} is in use: ${shown}${more}; ${done}; see '${hint(prefix, 'status', group)}'`,
  );
}

const MOST_USES = 5;

/** Returns the index of `.tail` that the confirmation is for. @throws RunlockError `refused` */
function ask({ confirm }: Ways, { prefix, group, force }: ForgetOptions, use: GroupUse): number {
  const records = use.nodes.length;
  const others = use.leftovers.length - records;
  const what = `this deletes everything stored for ${group}: ${count(records, 'record')} of last runs and ${count(others, 'other key')}`;
  const answer = force || confirm(`${what}.`);
  if (answer === true) return use.tailIndex;
  const how = `'${hint(prefix, 'forget', group, '--force')}'`;
  throw new RunlockError('refused', answer === false ? 'nothing was deleted' : `${what}; to confirm: ${how}`);
}

const count = (number: number, word: string) =>
  `${number.toLocaleString('en-US')} ${word}${number === 1 ? '' : 's'}`;

const cameMeanwhile = ({ prefix, group }: ForgetOptions) =>
  new RunlockError(
    'refused',
    `a run joined ${group} before the answer; check '${hint(prefix, 'history', group)}' and run forget again`,
  );
