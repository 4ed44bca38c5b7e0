/** Reads single keys as they were at one moment, and tells a key that is not there from one that may not be read. */
import type { Consul, Entry, RetryOptions } from '../consul/consul.ts';
import { RunlockError } from '../errors.ts';

/** A key, and the rule that reading it takes. */
export interface Wanted {
  readonly key: string;
  readonly rule: string;
  /** Whether it is probably not there; a wrong guess costs another read. */
  readonly absent?: boolean;
}

/** Keys that come and go as often as this in a row are no chance. */
const TRIES = 20;

/**
 * Reads these keys, at most 64, in one consistent transaction. A key that is there by `get`, which refuses the whole
 * transaction if it is not; only then by `get-tree`, which reads `web10` with `web1`. (`check-not-exists` takes the right
 * to write.)
 * @returns the entries by key; a key that was not there has none.
 * @throws RunlockError `forbidden`, naming the rule: a transaction just leaves out what may not be read, so what it
 * leaves out, or calls absent, is asked for by itself. `refused`: the keys keep changing.
 */
export async function readTogether(
  consul: Consul,
  wanted: readonly Wanted[],
  options: RetryOptions,
): Promise<ReadonlyMap<string, Entry>> {
  const absent = new Set(wanted.filter((each) => each.absent).map(({ key }) => key));
  for (let tries = 1; tries <= TRIES; tries += 1) {
    const answer = await consul.tryRead(
      wanted.map(({ key }) => ({ verb: absent.has(key) ? 'get-tree' : 'get', key })),
      { ...options, rule: wanted[0]?.rule ?? '' },
    );
    if (answer.kind === 'done') {
      const keys = new Set(wanted.map(({ key }) => key));
      const found = new Map(
        answer.entries.filter(({ key }) => keys.has(key)).map((entry) => [entry.key, entry]),
      );
      const missing = wanted.filter(({ key }) => !found.has(key));
      for (const { key, rule } of missing) await consul.get(key, { ...options, rule });
      if (missing.every(({ key }) => absent.has(key))) return found;
      // It may be read again, and was left out before.
      continue;
    }
    absent.add(wanted[answer.at]?.key ?? '');
  }
  throw new RunlockError(
    'refused',
    `${wanted[0]?.key ?? ''} and what belongs to it keep changing; try again`,
  );
}
