// What `release` says of a run that waits without a slot.
import { expect, test } from 'vitest';
import { describeRelease } from '../../src/commands/release/describe.ts';

const since = new Date(0).toISOString();
const outside = {
  kind: 'outside',
  node: 'web01',
  group: 'web',
  run: 'r1',
  command: 'acquire',
  since,
} as const;
const says = (
  more: { readonly when: readonly string[]; readonly services?: readonly string[] },
  isOwn = false,
) => describeRelease({ ...outside, ...more }, { prefix: 'runlock', nowMs: 60_000, isOwn });
const rest =
  'if that runlock is dead already, Consul drops the run within two minutes (later if its --session-ttl is longer)\n';

test('a run that waits without a slot is named with what it waits for, and where to end it', () => {
  const head =
    'nothing was done: web01 has no claim in web, but its run r1 (acquire) has been waiting without a slot for 1m';
  expect(says({ when: ['state:a'], services: ['web', 'db'] })).toBe(
    `${head}, until its gate (web, db) and state:a; to stop that run, end its runlock on web01; ${rest}`,
  );
  expect(says({ when: [] }, true)).toBe(`${head}; to stop that run, end its runlock on this host; ${rest}`);
});
