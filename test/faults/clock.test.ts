// A host's wall clock that jumps under runlock itself: the built program, whose own clock a file sets.
import { readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { useAgent } from '../support/use-agent.ts';
import { gapMs, grants } from '../support/history/behind.ts';
import { startFleet } from '../support/history/fleet.ts';
import type { Fleet } from '../support/history/fleet.ts';
import { eventually } from '../support/processes.ts';
import { preloading } from '../support/program.ts';

const agent = useAgent();

const HOUR_MS = 3_600_000;
const HOLD_MS = 8_000;
/** What hosts' clocks may differ by. */
const DIFFERENCE_MS = 5_000;

let count = 0;
const fleetOf = (hold: string) => startFleet(agent, { group: `clock-${count++}`, hold });

const PRELOAD = `
const { readFileSync, writeFileSync } = require('node:fs');
const file = process.env.WALL_CLOCK_AHEAD;
const now = Date.now;
Date.now = () => {
  const ahead = readFileSync(file, 'utf8');
  writeFileSync(file + '.seen', ahead);
  return now() + Number(ahead);
};
`;

/** A host whose wall clock the test sets, in milliseconds ahead of the right time. */
function host({ folder }: Fleet, name: string) {
  const preload = join(folder, 'preload.cjs');
  const file = join(folder, `${name}.ahead`);
  writeFileSync(preload, PRELOAD);
  const jump = (aheadMs: number) => {
    writeFileSync(`${file}.new`, String(aheadMs));
    renameSync(`${file}.new`, file);
  };
  jump(0);
  return {
    env: { ...preloading(preload), WALL_CLOCK_AHEAD: file },
    jump,
    /** Whether its runlock has read the clock since it was set last. */
    hasSeen: (aheadMs: number) => expect(readFileSync(`${file}.seen`, 'utf8')).toBe(String(aheadMs)),
  };
}

describe.concurrent('hold 8s', { timeout: 120_000 }, () => {
  test.for([
    ['forward by an hour', HOUR_MS, 0],
    ['back by 4 s', -4_000, 4_000],
  ] as const)(
    'the wall clock jumps %s while a node waits first: never early',
    async ([, aheadMs, laterMs]) => {
      await using fleet = fleetOf('8s');
      const web02 = host(fleet, 'web02');
      const failing = fleet.start('web01');
      await failing.running(20_000);
      const next = fleet.start('web02', { env: web02.env, part: { beats: 3 } });
      await next.waiting(20_000);
      const last = fleet.start('web03', { part: { beats: 3 } });
      await last.waiting(20_000);
      failing.tell(1);
      expect((await failing.ended).status).toBe(1);
      web02.jump(aheadMs);
      // Has it look again: another slot's lock comes and goes.
      await agent.kv.put(`runlock/${fleet.group}/.slot/9/lock`, '');
      await agent.kv.delete(`runlock/${fleet.group}/.slot/9/lock`);
      await eventually(() => web02.hasSeen(aheadMs));
      for (const node of [next, last]) {
        const { status, stderr } = await node.ended;
        expect(status, stderr).toBe(0);
      }
      expect(await grants(fleet)).toEqual(['web01', 'web02', 'web03']);
      const gap = await gapMs(fleet, 'web01', 'web02');
      expect(gap).toBeGreaterThan(HOLD_MS + DIFFERENCE_MS - 50);
      expect(gap).toBeLessThan(HOLD_MS + DIFFERENCE_MS + laterMs + 10_000);
      expect(await fleet.verdict()).toMatchObject({ broken: [], judged: { runs: 3 } });
    },
  );

  test('the wall clock jumps back by an hour under a run that then fails: its hold is kept in full', async () => {
    await using fleet = fleetOf('8s');
    const web01 = host(fleet, 'web01');
    const failing = fleet.start('web01', { env: web01.env });
    await failing.running(20_000);
    const next = fleet.start('web02', { part: { beats: 3 } });
    await next.waiting(20_000);
    web01.jump(-HOUR_MS);
    failing.tell(1);
    expect((await failing.ended).status).toBe(1);
    web01.hasSeen(-HOUR_MS);
    expect((await next.ended).status).toBe(0);
    expect(await gapMs(fleet, 'web01', 'web02')).toBeGreaterThan(HOLD_MS + DIFFERENCE_MS - 50);
    expect(await fleet.verdict()).toMatchObject({ broken: [], judged: { runs: 2 } });
  });

  test('the wall clock jumps forward by an hour under a run that then fails: its hold is longer', async () => {
    await using fleet = fleetOf('8s');
    const web01 = host(fleet, 'web01');
    const failing = fleet.start('web01', { env: web01.env });
    await failing.running(20_000);
    web01.jump(HOUR_MS);
    failing.tell(1);
    expect((await failing.ended).status).toBe(1);
    const leftMs = Date.parse((await fleet.claim())?.heldUntil ?? '') - Date.now();
    expect(leftMs).toBeGreaterThan(HOUR_MS);
    expect(leftMs).toBeLessThanOrEqual(HOUR_MS + HOLD_MS);
    expect((await fleet.run('web01')).status).toBe(0);
    expect(await fleet.keys()).toEqual(['.last', '.runs/web01', '.tail']);
    expect(await fleet.verdict()).toMatchObject({ broken: [], judged: { runs: 2 } });
  });
});

test.concurrent.for(['forever', '8s', 'none'])(
  'hold %s, the wall clock jumps forward by an hour and back by two: all goes on',
  { timeout: 120_000 },
  async (hold) => {
    await using fleet = fleetOf(hold);
    const web01 = host(fleet, 'web01');
    const run = fleet.start('web01', { env: web01.env });
    await run.running(20_000);
    const lock = () => agent.kv.get(`runlock/${fleet.group}/.slot/0/lock`);
    const before = await lock();
    const next = fleet.start('web02', { part: { beats: 3 } });
    await next.waiting(20_000);
    for (const aheadMs of [HOUR_MS, -HOUR_MS]) {
      web01.jump(aheadMs);
      await longerThanUnrenewed();
      expect(await lock()).toEqual(before);
    }
    run.tell();
    expect(await run.ended).toMatchObject({ status: 0, stderr: '' });
    web01.hasSeen(-HOUR_MS);
    expect((await next.ended).status).toBe(0);
    expect(await grants(fleet)).toEqual(['web01', 'web02']);
    expect(await fleet.keys()).toEqual(['.last', '.runs/web01', '.runs/web02', '.tail']);
    expect(await fleet.verdict()).toMatchObject({ broken: [], judged: { runs: 2 } });
  },
);

/** Resolves when another session of the same TTL, which nobody renews, has come to its end. */
async function longerThanUnrenewed(): Promise<void> {
  const created = await agent.http('PUT', '/v1/session/create', { TTL: '10s', Checks: [] });
  const { ID } = created.json() as { ID: string };
  await eventually(async () => {
    const info = await agent.http('GET', `/v1/session/info/${ID}?consistent`);
    expect(info.json()).toEqual([]);
  }, 40_000);
}
