// How fast a crowd dies: measured, so nothing else of the tests runs at the same time.
import { readdirSync } from 'node:fs';
import { describe, expect, test } from 'vitest';

import { useAgent } from '../support/use-agent.ts';
import { hide } from '../support/hiding.ts';
import { makeCell, whyNoCell } from '../support/kernel-count.ts';
import { eventually, guardOf, untilGone } from '../support/processes.ts';

const agent = useAgent();

const why = whyNoCell;
const LONG = { timeout: 240_000 };

describe.skipIf(why !== undefined)(`in a cgroup${why === undefined ? '' : ` (left out: ${why})`}`, () => {
  test('SIGKILL of runlock with 10,000 children: all are gone within two seconds', LONG, async () => {
    const counted = makeCell({ nests: true });
    const { run, ready } = hide(agent, 10_000, counted);
    await ready();
    const guard = guardOf(run.pid);
    expect(counted.pids().length).toBeGreaterThan(10_000);
    run.signal('SIGKILL');
    const killedMs = performance.now();
    // Their number alone: to show the difference between thousands and none takes time that the dying need.
    const left = () => counted.pids().filter((pid) => pid !== guard).length;
    await eventually(() => expect(left()).toBe(0), 10_000);
    expect(performance.now() - killedMs).toBeLessThan(2_000);
    await untilGone(guard);
    expect(counted.pids()).toEqual([]);
    expect(readdirSync(counted.folder).filter((name) => name.startsWith('runlock-'))).toEqual([]);
  });
});
