// Back in service: which marks of the node's other runs go with that, and which stay (docs/adr/0020-last-one-out.md).
import { describe, expect, test } from 'vitest';
import type { Deps } from '../../src/platform/deps.ts';
import { leaveService } from '../../src/gate/exit.ts';
import type { Exit } from '../../src/gate/exit.ts';
import { maintenanceReason } from '../../src/gate/reason.ts';
import { groupKeys, outKeys } from '../../src/lock/keys.ts';
import { encode } from '../../src/lock/records.ts';
import type { Claim, OutMark } from '../../src/lock/records.ts';
import { memoryNode } from '../support/memory-node.ts';

const [OTHER, LEFT, SELF] = ['b', 'c', 'd'].map((digit) => `00000000-0000-4000-8000-00000000000${digit}`) as [
  string,
  string,
  string,
];
const keys = outKeys('runlock', 'web01');
const group = groupKeys('runlock', 'prod');
const { signal } = new AbortController();

/** web01 with `web` out of service for another run, which is under way. */
function node({ services = ['web'] }: { services?: string[] } = {}) {
  const memory = memoryNode();
  memory.register('web-1');
  memory.maintain('web-1', maintenanceReason(OTHER));
  const mark = (run: string, more: Partial<OutMark> = {}) =>
    memory.put(keys.mark(run), encode({ services: ['web'], groups: ['prod'], ...more }));
  mark(OTHER, { services });
  const runner = { pid: 1, startTime: '1', bootId: 'b' };
  const since = new Date(0).toISOString();
  const claim: Claim = {
    node: 'web01',
    state: 'running',
    run: OTHER,
    since,
    command: 'true',
    hold: 'forever',
    ...runner,
  };
  memory.put(group.owner(0), encode(claim));
  memory.put(group.lock(0), encode({ run: OTHER }), 'other');
  const clock = { monotonicMs: () => 0, sleep: () => Promise.resolve() };
  const host = { bootId: 'b', startTime: () => '1', survivors: () => ({ pids: [], guarded: false }) };
  const deps = { clock, host, random: () => 0, emit: () => undefined } as unknown as Deps;
  const { consul } = memory;
  const leave = (how: Exit['how'], own?: OutMark) => {
    const exit: Exit = { prefix: 'runlock', node: 'web01', run: SELF, services: ['web'], mark: own, how };
    return leaveService({ consul, deps, agent: { consul, deps } }, exit, { signal });
  };
  const marks = () => [OTHER, LEFT, SELF].filter((run) => memory.at(keys.mark(run)) !== undefined);
  return { ...memory, leave, mark, marks };
}

const OWN: OutMark = { services: ['web'], groups: ['prod'] };

describe('by hand, under a run that needs it', () => {
  test('its maintenance stays, and its mark with it', async () => {
    const { leave, marks, out } = node();
    expect((await leave('by-hand')).kept).toMatchObject([{ by: { run: OTHER } }]);
    expect(out()).toEqual(['web-1']);
    expect(marks()).toEqual([OTHER]);
  });
});

describe('what a run has left on', () => {
  test('is still known to be so while another run needs it', async () => {
    const { leave, mark, marks } = node();
    mark(LEFT, { state: 'left' });
    await leave('good', OWN);
    // Its own says so too: it would have ended it.
    expect(marks()).toEqual([OTHER, LEFT, SELF]);
  });

  test('is so no more where that run needs something else', async () => {
    const { leave, mark, marks } = node({ services: ['db'] });
    mark(LEFT, { state: 'left' });
    await leave('good', OWN);
    expect(marks()).toEqual([OTHER]);
  });

  test('stays under a mark that nobody can read, which may need anything', async () => {
    const { leave, mark, marks, put } = node({ services: ['db'] });
    put(keys.mark(OTHER), '{"v":99}');
    mark(LEFT, { state: 'left' });
    await leave('good', OWN);
    expect(marks()).toContain(LEFT);
  });
});
