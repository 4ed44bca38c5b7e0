// Whole jobs on a real agent: started, looked at, ended by many at once; and what a token without a right is told.
import { afterAll, beforeAll, expect, test } from 'vitest';
import { connect } from '../../src/consul/consul.ts';
import type { Consul } from '../../src/consul/consul.ts';
import { consulSettings } from '../../src/consul/env.ts';
import { acceptTarget, dropPointer, endTarget, stopJob } from '../../src/jobs/end.ts';
import { lookAt } from '../../src/jobs/read.ts';
import { startJob } from '../../src/jobs/starter.ts';
import type { Target } from '../../src/jobs/starter.ts';
import { viewJob } from '../../src/jobs/view.ts';
import { at, nowMs, place, spec } from '../support/jobs.ts';
import { useAgent } from '../support/use-agent.ts';

const agent = useAgent({ acl: true });
const { signal } = new AbortController();
const clock = {
  ...{ now: () => nowMs, monotonicMs: () => performance.now(), earliest: () => nowMs, latest: () => nowMs },
  sleep: (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms)),
};
const open: Consul[] = [];
const connectAs = (token?: string): Consul => {
  const env = token === undefined ? agent.env : { ...agent.env, CONSUL_HTTP_TOKEN: token };
  const consul = connect(consulSettings(env), { clock, emit: () => undefined });
  open.push(consul);
  return consul;
};
let consul: Consul;
beforeAll(() => {
  consul = connectAs();
});
afterAll(() => {
  for (const each of open) each.close();
});

const { task, params, home, maxFailures, offline, pauseMs, until, by, nonce } = spec;
const asked = { task, params, home, maxFailures, offline, pauseMs, until, by, nonce, at } as const;
const ref = (id: string) => ({ principal: 'ops', id });
const common = () => ({ consul, prefix: 'p', deps: { clock, random: Math.random }, signal });

test('targets that end at once are all counted, and their job is done', async () => {
  const targets: Target[] = Array.from({ length: 25 }, (_, i) => [`web${i}`, i === 0 ? 0 : 1]);
  await startJob(common(), { ref: ref('many'), spec: asked, targets });
  const end = (node: string) => {
    const own = new AbortController();
    const of = { ...common(), signal: own.signal, ref: ref('many'), node };
    return endTarget(of, { end: () => ({ state: 'good', endedAt: at }), isNode: true });
  };
  await end('web0');
  const results = await Promise.all(targets.slice(1).map(([node]) => end(node)));
  expect(new Set(results.map(({ kind }) => kind))).toEqual(new Set(['ended']));
  const view = await viewJob({ ...common(), ref: ref('many') }, { signal });
  expect(view).toMatchObject({ isOver: true, counts: { good: 25 }, job: { tally: { value: { rev: 25 } } } });
  expect(await agent.kv.tree('p/.requests/ops/inbox/')).toEqual([]);
});

test('a node accepts, and its pointer stays until it has ended', async () => {
  await startJob(common(), { ref: ref('one'), spec: asked, targets: [['web01', 0]] });
  const of = { ...common(), ref: ref('one'), node: 'web01' };
  expect(await acceptTarget(of)).toMatchObject({ kind: 'accepted' });
  expect(await dropPointer(of)).toMatchObject({ kind: 'needed' });
  await endTarget(of, { end: () => ({ state: 'refused', endedAt: at }) });
  expect(await dropPointer(of)).toEqual({ kind: 'dropped' });
  expect(await lookAt(of, of, { signal })).toMatchObject({ kind: 'target' });
  expect(await lookAt({ ...of, ref: ref('none') }, of, { signal })).toEqual({ kind: 'gone' });
});

const { keys, requests } = place('p', 'guarded');
const NEEDED: [string, string][] = [
  ['.requests/', `key_prefix "p/.requests/" { policy = "read" }`],
  ['.jobs/', `key_prefix "p/prod/web/.jobs/" { policy = "read" }`],
];

test.each(NEEDED)('without the right to read %s nothing counts as gone', async (_, missing) => {
  await startJob(common(), { ref: ref('guarded'), spec: asked, targets: [['web01', 0]] });
  const rules = NEEDED.map(([, rule]) => rule).filter((rule) => rule !== missing);
  const token = await agent.token(rules.join('\n'));
  const of = { ...common(), consul: connectAs(token), ref: ref('guarded'), node: 'web01' };
  for (const looks of [() => lookAt(of, of, { signal }), () => viewJob(of, { signal })])
    await expect(looks()).rejects.toMatchObject({
      code: 'forbidden',
      message: expect.stringContaining(missing) as string,
    });
  const whole = await agent.token(NEEDED.map(([, rule]) => rule).join('\n'));
  const allowed = { ...of, consul: connectAs(whole) };
  expect(await lookAt(allowed, allowed, { signal })).toMatchObject({ kind: 'target' });
  expect(await lookAt({ ...allowed, ref: ref('none') }, allowed, { signal })).toEqual({ kind: 'gone' });
});

test('whoever may not write a job is told the rule for the jobs of its principal alone', async () => {
  await startJob(common(), { ref: ref('guarded'), spec: asked, targets: [['web01', 0]] });
  const { principal } = ref('guarded');
  const needed = `/.jobs/${principal}/" { policy = "write" }`;
  const reads = NEEDED.map(([, rule]) => rule);
  const weak = { ...common(), consul: connectAs(await agent.token(reads.join('\n'))), ref: ref('guarded') };
  const others = [
    ...reads.filter((rule) => rule.includes('.jobs/')),
    `key_prefix "p/.requests/" { policy = "write" }`,
    `key_prefix "p/prod/web/.jobs/other/" { policy = "write" }`,
  ];
  const other = { ...weak, consul: connectAs(await agent.token(others.join('\n'))) };
  for (const of of [weak, other])
    for (const writes of [
      () => stopJob({ ...of, home: 'prod/web' }, { why: 'cancelled', by: 'x' }),
      () => acceptTarget({ ...of, node: 'web01' }),
      () => startJob(of, { ref: ref('more'), spec: asked, targets: [['web01', 0]] }),
    ])
      await expect(writes()).rejects.toThrow(needed);
});

test('a token that may not read single keys of a job is told so', async () => {
  await startJob(common(), { ref: ref('guarded'), spec: asked, targets: [['web01', 0]] });
  const rules = NEEDED.map(([, rule]) => rule);
  for (const key of [keys.stage, keys.tally, keys.node('web01'), requests.pointer('web01', 'guarded')]) {
    const token = await agent.token([...rules, `key "${key}" { policy = "deny" }`].join('\n'));
    const of = { ...common(), consul: connectAs(token), ref: ref('guarded'), node: 'web01' };
    await expect(lookAt(of, of, { signal })).rejects.toMatchObject({ code: 'forbidden' });
  }
});
