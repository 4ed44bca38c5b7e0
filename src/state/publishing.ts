/** The states of a run that ends well, as its last transaction has to write them. */
import type { Consul, Entry } from '../consul/consul.ts';
import { isRunlockError } from '../errors.ts';
import type { Limits } from '../lock/release.ts';
import type { Closing } from '../lock/finish.ts';
import { changeStates } from '../lock/transactions.ts';
import type { StateChange } from '../lock/transactions.ts';
import type { WallClock } from '../platform/deps.ts';
import { decodeState, encodeState, leftOfState } from './document.ts';
import type { StateDocument } from './document.ts';
import { publishedDocument } from './of-run.ts';
import type { Writer } from './of-run.ts';
import { stateKey, stateRule } from './path.ts';
import type { Setting } from './setting.ts';

interface Asked {
  readonly consul: Consul;
  readonly clock: WallClock;
  readonly prefix: string;
  readonly publish: readonly Setting[];
  /** The paths of `--during`. */
  readonly during: readonly string[];
  readonly writer: Writer;
}

/** What `finishAll` needs of the states. Their change ids are drawn once: whatever is sent again is the same change. */
export function publishingOf({ consul, clock, prefix, publish, during, writer }: Asked): Closing {
  const wanted = publish.map((setting) => ({
    key: stateKey(prefix, setting.path),
    document: publishedDocument(setting, writer),
  }));
  const isPublish = (path: string) => publish.some((setting) => setting.path === path);
  const ended = during.filter((path) => !isPublish(path)).map((path) => stateKey(prefix, path));
  const keys = [...wanted.map(({ key }) => key), ...ended];
  const paths = [...publish.map(({ path }) => path), ...during];
  const rule = [...new Set(paths.map((path) => stateRule(prefix, path, 'write')))].join(', ');
  const read = (limits: Limits): Promise<readonly Entry[]> =>
    consul.readAll(
      keys.map((key) => ({ verb: 'get-tree', key })),
      { ...limits, rule, retryForMs: 0 },
    );
  return {
    rule,
    steps: async (limits, isFirst) => {
      const entries = await read(limits);
      const find = (key: string) => entries.find((entry) => entry.key === key);
      return changeStates([
        ...wanted.map(({ key, document }) => toChange(document, { key, entry: find(key), clock, isFirst })),
        ...ended.flatMap((key) => toDelete(find(key), writer.run)),
      ]);
    },
    isWritten: async (limits) => {
      const entries = await read(limits);
      return wanted.some(({ key, document }) => {
        const entry = entries.find((one) => one.key === key);
        return entry && readable(entry)?.change === document.change;
      });
    },
  };
}

/** Undefined: not a state that this version can read. What it is does not matter to who replaces it. */
function readable(entry: Entry): StateDocument | undefined {
  try {
    return decodeState(entry);
  } catch (error) {
    if (isRunlockError(error, 'incompatible')) return undefined;
    throw error;
  }
}

interface Found {
  readonly key: string;
  readonly entry: Entry | undefined;
  readonly clock: WallClock;
  readonly isFirst: boolean;
}

/**
 * The same value is left alone, if it is still there when the transaction is applied: its watchers see no change. After
 * a refusal it is set in any case, so that who changes a state to and fro can't keep a slot from being released.
 */
function toChange(document: StateDocument, { key, entry, clock, isFirst }: Found): StateChange {
  const seen = entry && readable(entry);
  const isSame =
    seen?.value === document.value && !seen.while && leftOfState(seen, clock.earliest()) > 0 && isFirst;
  if (!entry || !isSame) return { kind: 'set', key, value: encodeState(document) };
  if (seen.until === undefined) return { kind: 'same', key, index: entry.modifyIndex };
  const lasting: StateDocument & { until?: string } = { ...seen };
  delete lasting.until;
  return { kind: 'set', key, value: encodeState(lasting) };
}

/** A state of `--during` goes, unless somebody else has set it meanwhile. */
function toDelete(entry: Entry | undefined, run: string): StateChange[] {
  const seen = entry && readable(entry);
  if (!entry || seen?.run !== run || !seen.while) return [];
  return [{ kind: 'delete', key: entry.key, index: entry.modifyIndex }];
}
