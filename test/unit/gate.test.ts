// The health gate's decisions: what counts as offline, and how many may be.
import { describe, expect, test } from 'vitest';
import type { Consul } from '../../src/consul/consul.ts';
import { decideGate, limitOf, slotsWithin } from '../../src/gate/decide.ts';
import type { Question } from '../../src/gate/decide.ts';
import { findServices } from '../../src/gate/read.ts';
import { describeClosed, describeVerdict, waitedFor } from '../../src/gate/describe.ts';
import { instancesOf } from '../../src/gate/instances.ts';
import type { Instance } from '../../src/gate/instances.ts';
import { gateGroup, runningOf } from '../../src/gate/peers.ts';
import { groupKeys } from '../../src/lock/keys.ts';
import { fakeConsul } from '../support/fake-consul.ts';

const check = (id: string, fields: object = {}) => ({
  ...{ node: 'web01', id, name: `check ${id}`, status: 'critical' as const, notes: '', output: '' },
  ...{ serviceId: 'web-1', ...fields },
});
const seen = (...checks: ReturnType<typeof check>[]) => {
  const address = '10.0.0.1';
  const web = { node: 'web01', serviceId: 'web-1', service: 'web', createIndex: 1, address };
  const [instance] = instancesOf([{ ...web, checks }]);
  return instance;
};

describe('an instance', () => {
  test('is healthy while its checks pass or warn', () => {
    const healthy = { state: 'healthy', maintenance: [] };
    expect(seen()).toMatchObject(healthy);
    expect(seen(check('a', { status: 'passing' }), check('b', { status: 'warning' }))).toMatchObject(healthy);
    expect(seen()).not.toHaveProperty('why');
  });

  test.each([
    ['its own check', check('a', { output: 'HTTP GET: 500\nbody' }), 'check a: HTTP GET: 500'],
    ["its node's check", check('disk', { serviceId: '' }), 'check disk is critical'],
    [
      'an agent that is gone',
      check('serfHealth', { serviceId: '', output: 'left' }),
      'check serfHealth: left',
    ],
    ['maintenance', check('_service_maintenance:web-1', { notes: 'disk' }), 'maintenance: disk'],
    ["its node's maintenance", check('_node_maintenance', { notes: 'x', serviceId: '' }), 'maintenance: x'],
  ])('is offline by %s', (_, cause, why) => {
    expect(seen(check('z', { status: 'passing' }), cause)).toMatchObject({ state: 'offline', why });
  });

  test('says the cause that explains the others', () => {
    const all = [
      check('http', { output: 'refused' }),
      check('_service_maintenance:web-1', { notes: 'disk' }),
      check('serfHealth', { serviceId: '', output: 'Agent not live or unreachable' }),
    ];
    expect(seen(...all)?.why).toBe('check serfHealth: Agent not live or unreachable');
    expect(seen(...all.slice(0, 2))?.why).toBe('maintenance: disk');
  });

  test("knows runlock's own maintenance by its reason, and no other", () => {
    const service = check('_service_maintenance:web-1', { notes: 'runlock 4f1a' });
    const node = check('_node_maintenance', { notes: 'runlock 4f1a, said Anna', serviceId: '' });
    expect(seen(service, node)?.maintenance).toEqual([
      { scope: 'service', reason: 'runlock 4f1a', run: '4f1a' },
      { scope: 'node', reason: 'runlock 4f1a, said Anna' },
    ]);
  });

  test('has one short line for a reason, whatever a check printed', () => {
    const why = seen(check('a', { output: `\r\n${'x'.repeat(500)}\nmore` }))?.why ?? '';
    expect(why).toMatch(/^check a: x+…$/);
    expect(why.length).toBeLessThan(100);
  });
});

const at = (node: string, why?: string): Instance => ({
  ...{ node, serviceId: `web-${node}`, service: 'web', maintenance: [] },
  ...(why === undefined ? { state: 'healthy' } : { state: 'offline', why }),
});
const ask = (instances: readonly Instance[], more: Partial<Question> = {}) =>
  decideGate({ service: 'web', node: 'web01', maxOffline: 1, instances, ...more });
const [w1, w2, w3, w4, w5] = ['web01', 'web02', 'web03', 'web04', 'web05'].map((name) => at(name));
const five = [w1, w2, w3, w4, w5] as Instance[];
const sick = (...nodes: string[]) =>
  five.map((one) => (nodes.includes(one.node) ? at(one.node, 'sick') : one));

describe('the gate', () => {
  test.each([
    ['all are healthy', ask(five), true, 'room'],
    ['a peer is offline', ask(sick('web02')), false, 'too-many-offline'],
    ['a peer is offline and two may be', ask(sick('web02'), { maxOffline: 2 }), true, 'room'],
    ['two are and two may be', ask(sick('web02', 'web03'), { maxOffline: 2 }), false, 'too-many-offline'],
    ['this node is offline itself', ask(sick('web01', 'web02', 'web03')), true, 'own-offline'],
    ['this node does not offer it', ask(sick('web02'), { node: 'db01' }), true, 'not-here'],
    ['this node offered it before', ask(sick('web02'), { node: 'db01', wasHere: true }), false, 'away'],
    ['only this node offered it', ask([], { wasHere: true, allowUnknown: true }), false, 'away'],
    // Open before: a name that was wrong let every run pass.
    ['nobody offers it', ask([]), false, 'nowhere'],
    ['nobody offers it, and that is allowed', ask([], { allowUnknown: true }), true, 'nowhere'],
    [
      'a peer is offline, and unknown is allowed',
      ask(sick('web02'), { allowUnknown: true }),
      false,
      'too-many-offline',
    ],
    ['a peer runs now', ask(five, { running: ['web02'] }), false, 'too-many-offline'],
    ['a node of another service runs now', ask(five, { running: ['db01'] }), true, 'room'],
    [
      'a peer that runs is offline anyway',
      ask(sick('web02'), { running: ['web02'], maxOffline: 2 }),
      true,
      'room',
    ],
    [
      'a peer is offline that is waited for elsewhere',
      ask(sick('web02'), { waitedFor: ['web02'] }),
      true,
      'room',
    ],
    [
      'another is offline than the one that is waited for elsewhere',
      ask(sick('web02'), { waitedFor: ['web03'] }),
      false,
      'too-many-offline',
    ],
    ['40% may be, and one is', ask(sick('web02'), { maxOffline: { percent: 40 } }), true, 'room'],
    [
      '39% may be, and one is',
      ask(sick('web02'), { maxOffline: { percent: 39 } }),
      false,
      'too-many-offline',
    ],
    ['four must stay', ask(five, { minHealthy: 4 }), true, 'room'],
    ['five must stay', ask(five, { minHealthy: 5 }), false, 'too-few-healthy'],
    ['it is alone', ask([at('web01')]), true, 'room'],
    ['this node has two of them', ask([...five, at('web01')]), false, 'too-many-here'],
    ['this node has two, and one is sick', ask([...five, at('web01', 'sick')]), true, 'own-offline'],
    ['this node has two, and two may be', ask([...five, at('web01')], { maxOffline: 2 }), true, 'room'],
  ])('when %s', (_, verdict, open, because) => {
    expect(verdict).toMatchObject({ open, because });
  });

  test('has a part rounded down, and at least one', () => {
    const limits = [3, 4, 10, 12].map((total) => limitOf({ percent: 25 }, total));
    expect(limits).toEqual([1, 1, 2, 3]);
    expect(limitOf({ percent: 100 }, 7)).toBe(7);
    expect(limitOf(4, 2)).toBe(4);
  });

  test('lets a healthy node use no more slots than go offline at once, and a sick one all', () => {
    expect(slotsWithin(5, [ask(five, { maxOffline: 2 }), ask(five, { maxOffline: 3 })])).toBe(2);
    expect(slotsWithin(5, [ask(sick('web01'), { maxOffline: 2 })])).toBe(5);
    expect(slotsWithin(1, [ask(five, { maxOffline: 2 })])).toBe(1);
    expect(slotsWithin(5, [ask([...five, at('web01')], { maxOffline: 5 })])).toBe(2);
    expect(slotsWithin(5, [])).toBe(5);
  });
});

describe('in words', () => {
  test.each([
    [ask(sick('web02')), '1 of 5 offline: web-web02 on web02 (sick); with web01 2 would be offline (max 1)'],
    [ask(five, { minHealthy: 5 }), '0 of 5 offline; without web01 4 would stay healthy (min 5)'],
    [
      ask([...five, at('web01')]),
      'web01 alone has 2 of 6 instances, more than may be offline (max 1); raise --max-offline',
    ],
    [ask(five), '0 of 5 offline (max 1)'],
    [ask(five, { minHealthy: 2 }), '0 of 5 offline (max 1, min healthy 2)'],
    [
      ask([...five, at('web02', 'sick'), { ...at('web02', 'ill'), serviceId: 'web-b' }]),
      '2 of 7 offline: web-web02 on web02 (sick), web-b on web02 (ill); with web01 3 would be offline (max 1)',
    ],
    [ask(sick('web01')), 'web01 is offline itself (sick), and its run may repair it'],
    [ask([]), 'no instances; is the name correct?'],
    [ask(five, { node: 'db01' }), 'web01 has no instance'],
  ])('%#', (verdict, words) => {
    expect(describeVerdict(verdict, 'web01')).toBe(words);
  });

  test('a closed gate names what it waits for, each once, and not all of a crowd', () => {
    const closed = ask(sick('web02'));
    const other = { ...closed, service: 'api' };
    expect(waitedFor([closed, other, ask(five)])).toBe('web02 (sick)');
    expect(describeClosed([closed, ask(five)], 'web01')).toMatch(
      /^web: 1 of 5 offline: web-web02 on web02 \(sick\)[^:]*$/,
    );
    const many = Array.from({ length: 9 }, (_, i) => at(`peer${i}`, 'sick'));
    expect(waitedFor([ask([...five, ...many])])).toMatch(/peer4 \(sick\), 4 more$/);
  });
});

describe('who runs in the group', () => {
  interface Told {
    readonly state?: string;
    readonly returns?: number;
    readonly createIndex?: number;
    readonly modifyIndex?: number;
    readonly hold?: string | number;
    readonly heldUntil?: string;
  }
  const claim = (slot: number, node: string, told: Told = {}) => {
    const { state = 'running', returns, createIndex = 10 + slot, modifyIndex = createIndex } = told;
    const { hold = 'forever', heldUntil } = told;
    const runner = { pid: 1, startTime: '1', bootId: 'b' };
    const value = { v: 1, node, state, run: `r${slot}`, since: '2026-01-01T00:00:00.000Z', command: 'true' };
    const text = JSON.stringify({ ...value, hold, heldUntil, returns, ...runner });
    return { key: `runlock/web/.slot/${slot}/owner`, value: text, createIndex, modifyIndex };
  };
  const NOBODY = { nodes: [], all: [], before: [] };
  const NOW_MS = Date.parse('2026-01-01T12:00:00Z');
  const watch = (slots = 10) => gateGroup(groupKeys('runlock', 'web'), slots);
  const me = { group: watch(), node: 'web01', nowMs: NOW_MS, monotonicMs: 0 };

  test('are those whose command may be running, this node aside', () => {
    const states = ['running', 'held', 'rebooting', 'evicted', 'failed', 'abandoned', 'interrupted'];
    const entries = states.map((state, i) => claim(i, `web1${i}`, { state }));
    const { nodes } = runningOf([...entries, claim(9, 'web01')], me);
    expect(nodes).toEqual(['web10', 'web11', 'web12', 'web13', 'web15']);
  });

  test('were there before by the index of their grants', () => {
    expect(runningOf([claim(0, 'web02'), claim(1, 'web01'), claim(2, 'web03')], me).before).toEqual([
      'web02',
    ]);
    expect(runningOf([claim(0, 'web02'), claim(2, 'web03')], me).before).toEqual(['web02', 'web03']);
  });

  test('one that its run took back is no younger for it', () => {
    const back = claim(0, 'web02', { createIndex: 7, modifyIndex: 99, returns: 1 });
    const own = claim(1, 'web01', { createIndex: 8 });
    expect(runningOf([back, own], me).before).toEqual(['web02']);
    expect(runningOf([back, own], { ...me, node: 'web02' }).before).toEqual([]);
  });

  test('who came back to a claim that it had kept is no older for that', () => {
    const kept = claim(0, 'web01', { createIndex: 7, modifyIndex: 99 });
    const other = claim(1, 'web02', { createIndex: 8 });
    expect(runningOf([kept, other], me).before).toEqual(['web02']);
    expect(runningOf([kept, other], { ...me, node: 'web02' }).before).toEqual([]);
  });

  test('what is no longer a running claim has its place before, whatever changed it last', () => {
    const held = claim(0, 'web02', { state: 'held', modifyIndex: 99 });
    const evicted = claim(1, 'web03', { state: 'evicted', modifyIndex: 99 });
    expect(runningOf([held, evicted, claim(2, 'web01')], me).before).toEqual(['web02', 'web03']);
  });

  test('no longer those whose claims keep nobody out: to wait for them would last for ever', () => {
    const until = (secondsAgo: number) => new Date(NOW_MS - secondsAgo * 1_000).toISOString();
    const states = ['held', 'rebooting', 'abandoned'];
    const at = (ago: number) =>
      states.map((state, i) => claim(i, `web1${i}`, { state, heldUntil: until(ago) }));
    expect(runningOf(at(4), me)).toMatchObject({ nodes: ['web10', 'web11', 'web12'], dueInMs: 1_000 });
    expect(runningOf(at(5), me)).toEqual({ ...NOBODY, dueInMs: Infinity });
  });

  test.for([
    ['none', 60_000],
    [600_000, 660_000],
  ] as const)(
    'a run that vanished counts until its hold (%s) is over, on the watcher’s own clock',
    ([hold, afterMs]) => {
      const group = watch();
      const vanished = [claim(1, 'web02', { hold })];
      const at = (monotonicMs: number, entries = vanished) =>
        runningOf(entries, { ...me, group, monotonicMs });
      expect(at(5_000)).toEqual({ nodes: ['web02'], all: ['web02'], before: ['web02'], dueInMs: afterMs });
      expect(at(4_999 + afterMs).nodes).toEqual(['web02']);
      expect(at(5_000 + afterMs)).toEqual({ ...NOBODY, dueInMs: Infinity });
      // It came back meanwhile: its claim was written anew.
      expect(at(5_000 + afterMs, [claim(1, 'web02', { hold, modifyIndex: 99 })]).nodes).toEqual(['web02']);
    },
  );

  test('one with its lock, or with a hold for ever, counts however long it lasts', () => {
    const lock = {
      key: 'runlock/web/.slot/1/lock',
      value: '{}',
      session: 's',
      createIndex: 1,
      modifyIndex: 1,
    };
    const group = watch();
    const entries = [claim(1, 'web02', { hold: 'none' }), lock, claim(2, 'web03')];
    for (const monotonicMs of [0, 1e9])
      expect(runningOf(entries, { ...me, group, monotonicMs })).toMatchObject({ nodes: ['web02', 'web03'] });
  });

  test('the run in the only slot that one may use is waited for in the queue, not at the gate', () => {
    const entries = [claim(0, 'web02'), claim(1, 'web03')];
    const both = ['web02', 'web03'];
    expect(runningOf(entries, { ...me, group: watch(1) })).toMatchObject({
      ...{ nodes: ['web03'], all: both, before: both },
    });
  });
});

test('a gate of more services than one transaction can lock is wrong usage, and asks nothing', async () => {
  const services = Array.from({ length: 61 }, (_, i) => `service-${i}`);
  const asked: string[] = [];
  const may: Consul['may'] = (rights) => {
    asked.push(...rights.map(({ name }) => name));
    return Promise.resolve(rights.map(() => true));
  };
  const agentServices: Consul['agentServices'] = () => {
    asked.push('the agent');
    return Promise.resolve([]);
  };
  const consul = fakeConsul({ may, agentServices });
  const find = (names: string[]) =>
    findServices(consul, { services: names, node: 'web01', local: true }, NEVER);
  await expect(find(services)).rejects.toMatchObject({
    code: 'usage',
    message:
      'too many services for one gate (61); at most 60 are allowed; name fewer services with --service',
  });
  expect(asked).toEqual([]);
  expect((await find(services.slice(1))).counted).toHaveLength(60);
});

const NEVER = new AbortController().signal;
