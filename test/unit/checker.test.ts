// The judge of the fault suite, judged itself: a history that keeps all promises, and each promise broken in it.
import { describe, expect, test } from 'vitest';
import { judge } from '../support/history/checker.ts';
import type { Act, History, Process, RunTrace, SlotTrace, TicketTrace } from '../support/history/history.ts';

type Hold = 'forever' | 'none' | number;

interface Ran {
  readonly node: string;
  readonly token: number;
  readonly startMs: number;
  readonly lastMs: number;
  /** Null: it was killed. */
  readonly exitCode?: number | null;
  readonly slot?: number;
  readonly processes?: readonly Process[];
}

const runOf = ({ node, token, startMs, lastMs, exitCode = 0, slot = 0, processes = [] }: Ran): RunTrace => {
  const code = exitCode === null ? {} : { exitCode };
  const own: Process = { role: 'command', pid: token, startMs, lastMs, ...code };
  return { run: `run-${node}-${token}`, node, slot, token, processes: [own, ...processes] };
};

const claimed = (
  ran: RunTrace,
  atMs: number,
  more: { state?: string; hold?: Hold; heldUntilMs?: number; lockedBy?: string } = {},
): SlotTrace => {
  const { lockedBy, ...rest } = more;
  const { node, run, slot, token } = ran;
  const claim = { node, run, state: 'running', hold: 'forever' as Hold, index: token, ...rest };
  return { slot, atMs, claim, ...(lockedBy !== undefined && { lockedBy }) };
};

const free = (atMs: number, slot = 0): SlotTrace => ({ slot, atMs });

const ticketOf = (ran: RunTrace, createIndex: number, lastIndex: number): TicketTrace => ({
  session: `session-${ran.run}`,
  node: ran.node,
  run: ran.run,
  createIndex,
  lastIndex,
});

const web01 = runOf({ node: 'web01', token: 100, startMs: 1_000, lastMs: 2_000 });
const web02 = runOf({ node: 'web02', token: 200, startMs: 2_010, lastMs: 3_000 });
const web03 = runOf({ node: 'web03', token: 300, startMs: 3_010, lastMs: 4_000 });

/** Three nodes, one after the other, on one slot; all well. */
const sound: History = {
  slots: 1,
  runs: [web01, web02, web03],
  tickets: [ticketOf(web01, 90, 99), ticketOf(web02, 110, 199), ticketOf(web03, 120, 299)],
  served: [web01, web02, web03].map((ran) => ({ session: `session-${ran.run}`, index: ran.token })),
  slotTraces: [
    free(900),
    claimed(web01, 995, { lockedBy: 'a' }),
    free(2_005),
    claimed(web02, 2_008, { lockedBy: 'b' }),
    claimed(web03, 3_006, { lockedBy: 'c' }),
    free(4_005),
  ],
  acts: [],
  left: { keys: ['.tail', '.last', '.runs/web01', '.runs/web02', '.runs/web03'], sessions: [] },
  costs: [
    { waiters: 20, runs: 20, requests: 180, bytes: 50_000 },
    { waiters: 300, runs: 300, requests: 2_710, bytes: 755_000 },
  ],
};

/** Nothing but web01's run, ended as told, then web02's. */
function handOver(
  first: RunTrace,
  second: RunTrace,
  traces: readonly SlotTrace[],
  acts: readonly Act[] = [],
): History {
  return { ...sound, runs: [first, second], slotTraces: traces, acts, tickets: [], served: [] };
}

const promises = (history: History) => [...new Set(judge(history).broken.map(({ promise }) => promise))];

test('a history that keeps all promises breaks none, and says how much there was to judge', () => {
  expect(judge(sound)).toEqual({ broken: [], judged: { runs: 3, inOrder: 3, claims: 3 } });
});

describe('1: at most N runs overlap', () => {
  test('a run that starts before the one before it has ended is found', () => {
    const early = runOf({ node: 'web02', token: 200, startMs: 1_990, lastMs: 3_000 });
    expect(promises({ ...sound, runs: [web01, early, web03] })).toEqual([1]);
  });

  test('an orphan that beats on beside the next run is found, though its command is dead', () => {
    const orphan: Process = { role: 'grandchild', pid: 7, startMs: 1_000, lastMs: 2_500 };
    const killed = runOf({
      node: 'web01',
      token: 100,
      startMs: 1_000,
      lastMs: 1_500,
      exitCode: null,
      processes: [orphan],
    });
    const acts: Act[] = [{ atMs: 1_400, kind: 'clear', node: 'web01' }];
    expect(promises({ ...sound, runs: [killed, web02, web03], acts })).toContain(1);
  });

  test('a daemon that a good run left behind is none of it', () => {
    const daemon: Process = { role: 'daemon', pid: 7, startMs: 1_500, lastMs: 9_000 };
    const good = { ...web01, processes: [...web01.processes, daemon] };
    expect(promises({ ...sound, runs: [good, web02, web03] })).toEqual([]);
  });

  test('two at once are right with two slots, three are found', () => {
    const beside = runOf({ node: 'web02', token: 200, startMs: 1_500, lastMs: 3_000, slot: 1 });
    const third = runOf({ node: 'web03', token: 300, startMs: 1_600, lastMs: 4_000, slot: 2 });
    const none = { slotTraces: [], tickets: [], served: [] };
    expect(promises({ ...sound, ...none, slots: 2, runs: [web01, beside] })).toEqual([]);
    expect(promises({ ...sound, ...none, slots: 2, runs: [web01, beside, third] })).toEqual([1]);
  });
});

describe('2 and 4: a claim goes, and is taken over, only for a reason', () => {
  const failed = runOf({ node: 'web01', token: 100, startMs: 1_000, lastMs: 2_000, exitCode: 1 });
  const vanished = runOf({ node: 'web01', token: 100, startMs: 1_000, lastMs: 2_000, exitCode: null });
  const next = (startMs: number) => runOf({ node: 'web02', token: 200, startMs, lastMs: startMs + 100 });
  const held = (more: object = {}) => claimed(failed, 2_005, { state: 'failed', ...more });
  const taken = (ran: RunTrace, atMs: number) => claimed(ran, atMs, { lockedBy: 'b' });
  const after = (first: RunTrace, trace: SlotTrace, startMs: number, acts: Act[] = []) =>
    handOver(first, next(startMs), [trace, taken(next(startMs), startMs - 5)], acts);

  test('a failed claim with hold forever that another takes is found, as a grant and as one gone', () => {
    expect(promises(after(failed, held(), 90_000))).toEqual([2, 4]);
  });

  test('a grant over a claim that nobody saw go is found', () => {
    const history = handOver(failed, next(90_000), [held()]);
    expect(promises({ ...history, left: sound.left })).toEqual([2]);
  });

  test('a claim that goes although nobody follows is found', () => {
    const history = { ...sound, runs: [failed], slotTraces: [held(), free(5_000)], tickets: [], served: [] };
    expect(promises(history)).toEqual([4]);
  });

  test('the hold’s end is a reason, a moment before it is not', () => {
    const until = held({ hold: 10_000, heldUntilMs: 12_000 });
    expect(promises(after(failed, until, 17_100))).toEqual([]);
    expect(promises(after(failed, until, 11_900))).toEqual([2, 4]);
  });

  test('a vanished run with a finite hold that was never marked as held is found', () => {
    const unmarked = claimed(vanished, 2_005, { hold: 10_000 });
    expect(promises(after(vanished, unmarked, 90_000))).toEqual([2, 4]);
  });

  test('hold none: a vanished run may be followed once its lock was missing a minute, not before', () => {
    const traces = (startMs: number) => [
      claimed(vanished, 1_000, { hold: 'none', lockedBy: 'a' }),
      claimed(vanished, 20_000, { hold: 'none' }),
      taken(next(startMs), startMs - 5),
    ];
    const history = (startMs: number) => handOver(vanished, next(startMs), traces(startMs));
    expect(promises(history(80_100))).toEqual([]);
    expect(promises(history(60_000))).toEqual([2, 4]);
  });

  test('hold none: a failed run may be followed at once', () => {
    const ended = claimed(failed, 1_000, { hold: 'none', lockedBy: 'a' });
    expect(promises(after(failed, ended, 2_020))).toEqual([]);
  });

  test('hold none: also where its claim came and went between two looks; with another hold not', () => {
    const unseen = handOver(failed, next(2_020), [taken(next(2_020), 2_015)]);
    expect(promises({ ...unseen, hold: 'none' })).toEqual([]);
    expect(promises(unseen)).toContain(2);
  });

  test('its own node may take it back', () => {
    const again = runOf({ node: 'web01', token: 200, startMs: 5_000, lastMs: 6_000 });
    expect(promises(handOver(failed, again, [held(), taken(again, 4_995), free(6_005)]))).toEqual([]);
  });

  test.each<Act['kind']>(['clear', 'evict', 'by-hand', 'let-go'])('%s of this node explains it', (kind) => {
    expect(promises(after(failed, held(), 9_000, [{ atMs: 8_000, kind, node: 'web01' }]))).toEqual([]);
  });

  test('what concerns another node, or comes later, or only stopped or killed it, explains nothing', () => {
    const acts: Act[] = [
      { atMs: 8_000, kind: 'clear', node: 'web09' },
      { atMs: 9_500, kind: 'clear', node: 'web01' },
      { atMs: 8_000, kind: 'stop', node: 'web01' },
      { atMs: 8_000, kind: 'kill', node: 'web01' },
    ];
    expect(promises(after(failed, held(), 9_000, acts))).toEqual([2, 4]);
  });

  test('an operator cleared the claim of a run that lived on: found', () => {
    const alive = runOf({ node: 'web01', token: 100, startMs: 1_000, lastMs: 8_900, exitCode: null });
    const running = claimed(alive, 1_000, { lockedBy: 'a' });
    const acts: Act[] = [{ atMs: 5_000, kind: 'clear', node: 'web01' }];
    const history = {
      ...sound,
      runs: [alive],
      slotTraces: [running, free(5_010)],
      tickets: [],
      served: [],
      acts,
    };
    expect(promises(history)).toEqual([4]);
  });

  test('a claim whose command never started may be given back, unless its runlock was killed', () => {
    const traces = [claimed(web01, 900), free(950)];
    const history = { ...sound, runs: [], slotTraces: traces, tickets: [], served: [] };
    expect(promises(history)).toEqual([]);
    expect(promises({ ...history, acts: [{ atMs: 920, kind: 'kill', node: 'web01' }] })).toEqual([4]);
  });
});

describe('3: tickets are served in the order of their CreateIndex', () => {
  test('one who is served while an older ticket waits is found', () => {
    const passed = ticketOf(web03, 105, 299);
    expect(promises({ ...sound, tickets: [...sound.tickets.slice(0, 2), passed] })).toEqual([3]);
  });

  test('an older ticket that was gone by then was not passed over', () => {
    const gaveUp = { ...ticketOf(web03, 80, 95), session: 'gave-up', node: 'web09' };
    expect(promises({ ...sound, tickets: [...sound.tickets, gaveUp] })).toEqual([]);
  });
});

describe('5: fencing tokens of a slot only grow', () => {
  test('a smaller one, and the same one again, are found', () => {
    for (const token of [150, 200]) {
      const late = runOf({ node: 'web03', token, startMs: 3_010, lastMs: 4_000 });
      expect(promises({ ...sound, runs: [web01, web02, late], slotTraces: [] })).toContain(5);
    }
  });

  test('of one run that asked again, an old one is found as well', () => {
    const again = (before: number[], token: number): RunTrace => ({
      ...runOf({ node: 'web03', token, startMs: 3_010, lastMs: 4_000 }),
      before,
    });
    const found = (run: RunTrace) =>
      promises({ ...sound, runs: [web01, web02, run], slotTraces: [] }).includes(5);
    expect(found(again([300], 400))).toBe(false);
    expect(found(again([300], 300))).toBe(true);
    expect(found(again([300, 500], 400))).toBe(true);
    expect(found(again([web02.token], 400))).toBe(true);
  });

  test('another slot’s are its own', () => {
    const other = runOf({ node: 'web03', token: 50, startMs: 3_010, lastMs: 4_000, slot: 1 });
    expect(promises({ ...sound, slots: 2, runs: [web01, web02, other], slotTraces: [] })).toEqual([]);
  });
});

describe('6: nothing of a run stays after it ended well', () => {
  const withKeys = (...keys: string[]) => ({ ...sound, left: { keys, sessions: [] } });

  test.each(['.queue/session-run-web01-100', '.node/web02', '.slot/0/lock', '.slot/0/owner', '.slots'])(
    '%s is found',
    (key) => {
      const last = claimed(web03, 3_006, { lockedBy: 'c' });
      expect(promises({ ...withKeys(key), slotTraces: [last] })).toEqual([6]);
    },
  );

  test('a session is found', () => {
    expect(promises({ ...sound, left: { keys: [], sessions: ['s'] } })).toEqual([6]);
  });

  test('a failed run’s claim stays; what is left of one that was killed goes with its session', () => {
    const failed = runOf({ node: 'web03', token: 300, startMs: 3_010, lastMs: 4_000, exitCode: 1 });
    const slotTraces = [claimed(failed, 3_006, { state: 'failed' })];
    expect(promises({ ...withKeys('.slot/0/owner'), runs: [web01, web02, failed], slotTraces })).toEqual([]);
    const killed = runOf({ node: 'web03', token: 300, startMs: 3_010, lastMs: 4_000, exitCode: null });
    const acts: Act[] = [{ atMs: 4_000, kind: 'kill', node: 'web03' }];
    const left = { keys: ['.slot/0/owner', '.slot/0/lock', '.node/web03'], sessions: ['s'] };
    const history = {
      ...sound,
      runs: [web01, web02, killed],
      slotTraces: [claimed(killed, 3_006)],
      acts,
      left,
    };
    expect(promises(history)).toEqual([]);
  });
});

describe('7: requests and bytes a run do not grow with the number of waiters', () => {
  const cost = (waiters: number, requests: number, bytes: number) => ({
    waiters,
    runs: waiters,
    requests: requests * waiters,
    bytes: bytes * waiters,
  });

  test.each([
    ['requests grow', [cost(20, 5, 2_000), cost(300, 6, 2_000)]],
    ['bytes grow', [cost(300, 5, 2_500), cost(20, 5, 2_000)]],
    ['too many requests', [cost(20, 13, 2_000)]],
    ['too many bytes', [cost(20, 5, 5_000)]],
  ])('%s: found', (_, costs) => {
    expect(promises({ ...sound, costs })).toEqual([7]);
  });
});

describe('8: never more of a service is taken offline by runlock than its gate allows', () => {
  const out = (node: string, reason = `runlock run-${node}`) => ({ node, maintenance: [reason] });
  const ill = (node: string) => ({ node, maintenance: [] });
  const looks = (...offline: { node: string; maintenance: string[] }[][]) => ({
    ...sound,
    offline: [
      {
        service: 'web',
        limitOf: () => 2,
        looks: offline.map((each, i) => ({ atMs: 1_000 * (i + 1), total: 5, offline: each })),
      },
    ],
  });

  test('as many as the gate allows, one after the other too, are right', () => {
    const history = looks([], [out('web01'), out('web02')], [out('web02')], [out('web02'), out('web03')]);
    expect(promises(history)).toEqual([]);
  });

  test('one more is found', () => {
    expect(promises(looks([], [out('web01')], [out('web01'), out('web02'), out('web03')]))).toEqual([8]);
  });

  test('one more beside those who were ill before, or whom somebody else took out, is found', () => {
    const before = [ill('web01'), out('web02', 'by hand')];
    expect(promises(looks([], before, [...before, out('web03')]))).toEqual([8]);
  });

  test('who falls ill later, or was ill when it was taken out, was not taken offline by runlock', () => {
    const taken = [out('web01'), out('web02')];
    expect(promises(looks([], taken, [...taken, ill('web03')]))).toEqual([]);
    const sick = [ill('web01'), ill('web02'), ill('web03')];
    expect(promises(looks(sick, [ill('web01'), ill('web02'), out('web03')]))).toEqual([]);
  });

  test('where nobody looks, nothing is found', () => {
    expect(promises({ ...sound, offline: [] })).toEqual([]);
  });
});
