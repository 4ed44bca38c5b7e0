// What `runlock status --node` shows: every section from stored records, hostile ones made visible.
import { describe, expect, test } from 'vitest';
import type { Entry } from '../../src/consul/consul.ts';
import { renderNode } from '../../src/output/node.ts';
import { viewGroups } from '../../src/view/groups.ts';
import { viewNode } from '../../src/view/node.ts';
import type { NodeFound } from '../../src/view/node.ts';

const NOW = Date.parse('2026-03-01T12:00:00Z');
const ago = (seconds: number) => new Date(NOW - seconds * 1_000).toISOString();
let index = 0;
const entry = (key: string, record: object, session?: string): Entry => ({
  ...{ key: `runlock/${key}`, value: JSON.stringify({ v: 1, ...record }) },
  ...(session !== undefined && { session }),
  ...{ createIndex: (index += 1), modifyIndex: index },
});

const task = {
  name: 'chef',
  groups: ['prod/web'],
  allow: ['ops'],
  params: [],
  on: [],
  when: [],
  publish: [],
};
const agentOf = (more: object = {}, session: string | undefined = 'a') =>
  entry(
    '.agents/web01',
    {
      ...{ node: 'web01', version: '1.2.3', bootId: 'b', host: 'h1', pid: 7, since: ago(60), tasks: [task] },
      ...more,
    },
    session,
  );
const runner = { pid: 1, startTime: '1', bootId: 'b', hold: 'forever' };
const claim = (node: string, more: object = {}) => ({
  ...{ ...runner, node, state: 'running', run: `r-${node}`, since: ago(10), command: 'chef' },
  ...more,
});
const spec = {
  ...{
    nonce: 'n',
    task: 'chef',
    params: {},
    home: 'prod/web',
    stages: [1],
    digest: 'd',
    chunks: 1,
    filled: 1,
  },
  ...{ maxFailures: 0, offline: 'wait', pauseMs: 0, until: ago(-3_600), by: 'me@here', at: ago(30) },
};
const job = (
  id: string,
  {
    target,
    stage = { kind: 'open', stage: 0, since: ago(30) },
    nodes = ['web01'],
  }: {
    target?: object;
    stage?: object;
    nodes?: readonly string[];
  } = {},
) => [
  entry(`.requests/ops/spec/${id}`, spec),
  entry(`.requests/ops/targets/${id}/0`, { targets: nodes.map((node) => [node, 0]) }),
  entry(`.requests/ops/inbox/web01/${id}`, { nonce: 'n' }),
  entry(`prod/web/.jobs/ops/${id}/stage`, { rev: 1, ...stage }),
  ...(target ? [entry(`prod/web/.jobs/ops/${id}/nodes/web01`, { rev: 1, ...target })] : []),
];

function viewOf(entries: readonly Entry[], more: Partial<NodeFound> = {}) {
  const { groups } = viewGroups({ entries }, { prefix: 'runlock', groups: [], now: NOW });
  const found = {
    entries,
    groups,
    agentHidden: undefined,
    requestsHidden: undefined,
    triggersHidden: undefined,
    hidden: [],
  };
  return viewNode({ ...found, ...more }, { prefix: 'runlock', node: 'web01', now: NOW });
}

const textOf = (...given: Parameters<typeof viewOf>) =>
  renderNode(viewOf(...given), { color: false, now: NOW });

describe('the agent', () => {
  test('is there while a session holds its key, with its tasks', () => {
    const { agent, tasks } = viewOf([agentOf()]);
    const what = { version: '1.2.3', since: ago(60), host: 'h1', pid: 7, bootId: 'b' };
    expect({ agent, tasks }).toEqual({ agent: { state: 'there', ...what }, tasks: [task] });
    expect(textOf([agentOf()])).toContain('  agent: running for 1m, version 1.2.3 (pid 7 on h1)\n');
  });

  test('is absent without a key, or with one that no session holds', () => {
    const other = entry(
      '.agents/web012',
      { ...(JSON.parse(agentOf().value) as object), node: 'web012' },
      's',
    );
    const orphan = { ...agentOf(), session: undefined } as unknown as Entry;
    for (const entries of [[], [other], [orphan]]) {
      const view = viewOf(entries);
      expect(view.agent).toEqual({ state: 'absent' });
      expect(view).not.toHaveProperty('tasks');
    }
    expect(textOf([])).toContain('agent: not running (since when is not known');
  });

  test('is unknown where its key may not be read, or holds something else', () => {
    const hidden = viewOf([], { agentHidden: 'needs the rule x' });
    expect(hidden).toMatchObject({
      agent: { state: 'unknown', why: 'needs the rule x' },
      hidden: ['needs the rule x'],
    });
    const broken = viewOf([{ ...agentOf(), value: '{"v":1}' }]);
    expect(broken.agent).toMatchObject({ state: 'unknown' });
    expect(broken.problems).toEqual([expect.stringContaining('runlock/.agents/web01')]);
  });

  test('says that it is paused, and why it serves no requests', () => {
    const text = textOf([agentOf({ pausedSince: ago(120), noRequests: "Consul's ACLs are off" })]);
    expect(text).toContain(
      "agent: paused 2m ago; requests and triggers wait until 'runlock agent resume' on web01\n",
    );
    expect(text).toContain("agent: serves no requests: Consul's ACLs are off\n");
  });
});

describe('runs', () => {
  const running = [
    entry('prod/web/.slot/0/owner', claim('web01', { groups: ['prod/web', 'prod/x'] })),
    entry('prod/web/.slot/0/lock', { run: 'r-web01' }, 's1'),
    entry('prod/x/.slot/2/owner', claim('web01', { groups: ['prod/web', 'prod/x'] })),
    entry('prod/x/.slot/2/lock', { run: 'r-web01' }, 's2'),
    entry('prod/y/.slot/0/owner', claim('web02')),
  ];

  test("one in several groups is one run, with its job; other nodes' are not shown", () => {
    const target = { state: 'running', run: 'r-web01' };
    const view = viewOf([...running, ...job('j1', { target })]);
    expect(view.runs).toEqual([
      {
        ...{ state: 'running', alive: true, run: 'r-web01', command: 'chef', since: ago(10), job: 'ops/j1' },
        slots: [
          { group: 'prod/web', slot: 0 },
          { group: 'prod/x', slot: 2 },
        ],
      },
    ]);
    expect(textOf([...running, ...job('j1', { target })])).toContain(
      '  running chef in slot 0 of prod/web and slot 2 of prod/x for 10s for job ops/j1\n',
    );
  });

  test('the request of a run without its session says so too, and since when others know', () => {
    const target = { state: 'running', run: 'r-web01' };
    const vanished = [running[0] as Entry, ...job('j1', { target })];
    expect(viewOf(vanished).requests).toMatchObject([{ state: 'running', sessionGone: true }]);
    expect(textOf(vanished)).toMatch(/ops\/j1 .* running .* its session is gone, so it may have ended\n/);
    for (const entries of [
      [...running, ...job('j1', { target })],
      [running[0] as Entry, ...job('j1', { target: { ...target, run: 'another' } })],
      [running[0] as Entry, ...job('j1', { target: { ...target, state: 'good' } })],
    ])
      expect(viewOf(entries).requests?.[0]).not.toHaveProperty('sessionGone');
    const noticed = claim('web01', { missingSince: ago(5) });
    expect(textOf([entry('prod/web/.slot/0/owner', noticed)])).toContain(
      'its session is gone, so it may have ended (a waiting run noticed 5s ago)\n',
    );
  });

  test('a claim that keeps a slot, and a run without its session, are told apart', () => {
    const failed = entry('prod/web/.slot/0/owner', claim('web01', { state: 'failed', exitCode: 3 }));
    expect(textOf([failed])).toContain('  chef failed 10s ago (exit code 3), still in slot 0 of prod/web\n');
    expect(textOf([running[0] as Entry])).toContain('its session is gone, so it may have ended');
    expect(textOf([])).toContain('  no run is active or waiting\n');
  });

  test('waiting: the place in the queue and why, and what a run without a place waits for', () => {
    const ticket = (node: string) => ({ node, run: `q-${node}`, since: ago(90), command: 'chef', pid: 3 });
    const outside = {
      ...{
        run: 'o',
        since: ago(40),
        groups: ['prod/z'],
        when: ['state:db/schema=42'],
        publish: [],
        during: [],
      },
      command: 'deploy',
    };
    const view = viewOf([
      ...running.slice(4),
      entry('prod/y/.slot/0/lock', { run: 'r-web02' }, 's3'),
      entry('prod/y/.queue/s8', ticket('web03'), 's8'),
      entry('prod/y/.queue/s9', ticket('web01'), 's9'),
      entry('prod/z/.outside/web01', outside, 's10'),
    ]);
    expect(view.waiting).toEqual([
      {
        ...{ group: 'prod/y', run: 'q-web01', since: ago(90), waitedMs: 90_000, command: 'chef', place: 2 },
        why: expect.stringContaining('web02') as string,
      },
      {
        ...{ group: 'prod/z', run: 'o', since: ago(40), waitedMs: 40_000, command: 'deploy' },
        why: expect.stringContaining('db/schema is not set') as string,
      },
    ]);
    const text = renderNode(view, { color: false, now: NOW });
    expect(text).toContain('chef has been waiting at place 2 in the queue of prod/y for 1m30s: ');
    expect(text).toContain('deploy has been waiting for prod/z for 40s: ');
  });

  test('the last run in each group, the newest first', () => {
    const run = (outcome: string, endedAt: string) => ({
      ...{ node: 'web01', run: 'r', outcome, command: 'chef', slot: 0, endedAt, waitedMs: 0, ranMs: 4_000 },
    });
    const view = viewOf([
      entry('a/.runs/web01', run('succeeded', ago(500))),
      entry('b/.runs/web01', run('failed', ago(50))),
      entry('c/.runs/web02', { ...run('failed', ago(5)), node: 'web02' }),
    ]);
    expect(view.lastRuns.map(({ group, outcome }) => [group, outcome])).toEqual([
      ['b', 'failed'],
      ['a', 'succeeded'],
    ]);
  });
});

describe('requests', () => {
  test('in the order in which they were made, each with its state', () => {
    const view = viewOf([
      ...job('j2'),
      ...job('j1', { target: { state: 'waiting', why: 'place 2' } }),
      ...job('j3', { stage: { kind: 'stopped', why: 'cancelled', at: ago(1) } }),
      entry('.requests/ops/inbox/web01/.open', {}),
      entry('.requests/ops/inbox/web02/j1', { nonce: 'n' }),
    ]);
    const states = view.requests?.map(({ job: name, state, why }) => [name, state, why]);
    expect(states).toEqual([
      ['ops/j2', 'queued', undefined],
      ['ops/j1', 'waiting', 'place 2'],
      ['ops/j3', 'cancelled', undefined],
    ]);
  });

  test('one without a spec is gone; one that does not name the node says so; other keys are none', () => {
    const pointer = entry('.requests/ops/inbox/web01/j9', { nonce: 'n' });
    const forged = entry('.requests/ops/inbox/web01/../x', { nonce: 'n' });
    const view = viewOf([pointer, forged, ...job('j4', { nodes: ['web02'] })]);
    expect(view.requests).toEqual([
      { job: 'ops/j9' },
      expect.objectContaining({ job: 'ops/j4', why: 'its request does not name this node' }),
    ]);
    expect(renderNode(view, { color: false, now: NOW })).toMatch(/ops\/j9 +gone/);
  });

  test('one that can not be read is not gone, nor is its target queued', () => {
    const pointer = entry('.requests/ops/inbox/web01/junk', { nonce: 'n' });
    const junk = { ...entry('.requests/ops/spec/junk', {}), value: 'junk' };
    const [stored = pointer, ...rest] = job('j5', { target: { state: 'running' } }).sort((a, b) =>
      a.key.includes('/nodes/') ? -1 : b.key.includes('/nodes/') ? 1 : 0,
    );
    const view = viewOf([pointer, junk, { ...stored, value: '[]' }, ...rest]);
    expect(view.requests?.map(({ job: name, state }) => [name, state])).toEqual([
      ['ops/junk', 'unreadable'],
      ['ops/j5', 'unreadable'],
    ]);
    expect(view.problems).toEqual([
      expect.stringContaining("remove it with 'consul kv delete runlock/.requests/ops/spec/junk'"),
      expect.stringContaining(`remove it with 'consul kv delete ${stored.key}'`),
    ]);
    expect(renderNode(view, { color: false, now: NOW })).toMatch(/ops\/junk +unreadable/);
  });

  test('are not known to be none where they may not be read', () => {
    const view = viewOf([], { requestsHidden: 'needs y', hidden: ['needs z'] });
    expect(view).not.toHaveProperty('requests');
    expect(view.hidden).toEqual(['needs y', 'needs z']);
    const text = renderNode(view, { color: false, now: NOW });
    expect(text).toContain('something may be missing here: needs y\n');
    expect(text).toContain('no active or waiting run is known\n');
  });
});

describe('triggers', () => {
  const cursor = (name: string, more: object) =>
    entry(`.triggers/web01/${name}`, { since: ago(900), marks: {}, ...more });
  const until = ago(-60);

  test('are told apart by what has to be done about them', () => {
    const view = viewOf([
      cursor('a', { goodAt: ago(5) }),
      cursor('b', { failures: 1, backOffUntil: until }),
      cursor('c', { failures: 3, backOffUntil: ago(1), trippedAt: ago(9) }),
      cursor('d', { trippedAt: ago(9), tripEndsAt: until, left: 0, filledAt: ago(9) }),
      cursor('d2', { trippedAt: ago(9), tripEndsAt: ago(0), left: 0, filledAt: ago(9) }),
      cursor('d3', { stalledAt: ago(9) }),
      cursor('.hook/chat', { stalledAt: ago(9) }),
      cursor('e', { refused: { why: 'loop', cause: ['e@web01'], depth: 1, at: ago(7) } }),
      { ...cursor('f', {}), value: '{"v":9}' },
      { ...cursor('g', {}), value: 'x' },
      entry('.triggers/web012/h', { since: ago(900), marks: {}, failures: 5 }),
    ]);
    const states = view.triggers?.map(
      ({ task: name, hook, state }) => `${name ?? `hook ${hook ?? ''}`} ${state}`,
    );
    expect(states).toEqual([
      'a ok',
      'b failing',
      'c stuck',
      'd tripped',
      'd2 ok',
      'd3 stuck',
      'e refused',
      'f unknown',
      'g unknown',
      'hook chat stuck',
    ]);
    const text = renderNode(view, { color: false, now: NOW });
    expect(text).not.toContain('trigger of a');
    expect(text).toContain('  trigger of b is failing: its last run failed; next try in 1m\n');
    expect(text).toContain('  trigger of c is stuck: its last 3 runs failed; it may start again now\n');
    expect(text).toContain('trigger of d is tripped: it started too often, 9s ago; next try in 1m, or');
    expect(text).toContain(
      'trigger of e is refused: its last change, 7s ago, came from its own run (e@web01)\n',
    );
    expect(text).toContain(
      '  trigger of d3 is stuck: its starts begin no run, their logs on the node say why (noted',
    );
    expect(text).toContain(
      "  hook chat is stuck: its posts are not taken, the agent's log says why (noted 9s ago)",
    );
    expect(text).toContain('trigger of g is unknown: runlock/.triggers/web01/g holds no trigger\n');
  });

  test('are not known to be none where they may not be read', () => {
    const view = viewOf([], { triggersHidden: 'needs t' });
    expect(view).not.toHaveProperty('triggers');
    expect(view.hidden).toEqual(['needs t']);
  });
});

test('whatever a node, a principal or an agent wrote, nothing reaches the terminal as it is', () => {
  const evil = '\u001b[2J\u202e';
  const text = textOf([
    agentOf({
      version: evil,
      host: evil,
      noRequests: evil,
      tasks: [{ ...task, description: evil, on: [evil] }],
    }),
    ...job('j1', { target: { state: 'waiting', why: evil } }),
    entry('prod/web/.slot/0/owner', claim('web01', { command: evil })),
  ]);
  // eslint-disable-next-line no-control-regex -- that is what must not be there
  expect(text).not.toMatch(/[\u0000-\u0009\u000b-\u001f\u202e]/);
  expect(text).toContain(String.raw`\x1b[2J\u202e`);
});
