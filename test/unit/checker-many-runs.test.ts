// The judge where nodes run many times, as in a soak: what happened to one run must not excuse the next.
import { expect, test } from 'vitest';
import { judge } from '../support/history/checker.ts';
import type { Act, History, RunTrace, SlotTrace } from '../support/history/history.ts';

/** `exitCode` undefined: it was killed. */
function ran(node: string, token: number, [startMs, lastMs]: [number, number], exitCode?: number): RunTrace {
  const code = exitCode === undefined ? {} : { exitCode };
  return {
    run: `${node}-${token}`,
    ...{ node, slot: 0, token },
    processes: [{ role: 'command', pid: token, startMs, lastMs, ...code }],
  };
}

function claimOf(
  { run, node, slot, token }: RunTrace,
  atMs: number,
  more: { hold?: 'none'; lockedBy?: string } = {},
): SlotTrace {
  const { hold = 'forever', ...rest } = more;
  return { slot, atMs, claim: { node, run, state: 'running', hold, index: token }, ...rest };
}

const promises = (history: Partial<History>) => {
  const nothing = { slots: 1, tickets: [], served: [], runs: [], slotTraces: [], acts: [] };
  const { broken } = judge({ ...nothing, left: { keys: [], sessions: [] }, ...history });
  return [...new Set(broken.map(({ promise }) => promise))];
};

const first = ran('web01', 100, [1_000, 2_000], 0);
const failed = ran('web01', 200, [3_000, 4_000], 1);
const next = ran('web02', 300, [9_000, 9_500], 0);

test.each<Act['kind']>(['clear', 'evict', 'let-go'])(
  '%s of an earlier run of the node explains nothing of a later one',
  (kind) => {
    const history = {
      runs: [first, failed, next],
      slotTraces: [claimOf(failed, 3_000), claimOf(next, 8_995)],
    };
    expect(promises({ ...history, acts: [{ atMs: 1_500, kind, node: 'web01' }] })).toEqual([2, 4]);
    expect(promises({ ...history, acts: [{ atMs: 5_000, kind, node: 'web01' }] })).toEqual([]);
  },
);

test('hold none: a killed command may be followed at once if its end was recorded, else not', () => {
  const killed = ran('web01', 100, [1_000, 8_900]);
  const traces = [
    claimOf(killed, 1_000, { hold: 'none', lockedBy: 'a' }),
    claimOf(next, 8_995, { hold: 'none', lockedBy: 'b' }),
  ];
  const history = { runs: [killed, next], slotTraces: traces };
  expect(promises({ ...history, recorded: [killed.run] })).toEqual([]);
  expect(promises({ ...history, recorded: ['another'] })).toEqual([2, 4]);
  const livesOn = ran('web01', 100, [1_000, 20_000]);
  expect(promises({ ...history, runs: [livesOn, next], recorded: [livesOn.run] })).toEqual([1, 2, 4]);
});

test('hold none: one killed before its command started may be followed in a minute, not before', () => {
  const never = ran('web01', 100, [0, 0]);
  const later = (startMs: number) => ran('web02', 300, [startMs, startMs + 100], 0);
  const history = (startMs: number) => ({
    runs: [later(startMs)],
    slotTraces: [
      claimOf(never, 1_000, { hold: 'none', lockedBy: 'a' }),
      claimOf(never, 2_000, { hold: 'none' }),
      claimOf(later(startMs), startMs - 5, { hold: 'none', lockedBy: 'b' }),
    ],
    acts: [{ atMs: 1_010, kind: 'kill' as const, node: 'web01' }],
  });
  expect(promises(history(62_100))).toEqual([]);
  expect(promises(history(40_000))).toEqual([4]);
});

test('a good run of the owner between two looks explains that its claim went; a failed one not', () => {
  const history = (exitCode: number) => ({
    runs: [failed, ran('web01', 250, [8_000, 8_500], exitCode), next],
    slotTraces: [claimOf(failed, 3_000), claimOf(next, 8_995)],
  });
  expect(promises(history(0))).toEqual([]);
  expect(promises(history(1))).toEqual([2, 4]);
});
