// Many targets of one job at once on a real agent, judged by what was seen of it from outside.
import { afterAll, beforeAll, expect, test } from 'vitest';
import { connect } from '../../src/consul/consul.ts';
import type { Consul } from '../../src/consul/consul.ts';
import { consulSettings } from '../../src/consul/env.ts';
import { send } from '../../src/consul/txn.ts';
import { acceptTarget, dropPointer, endTarget, stopJob } from '../../src/jobs/end.ts';
import { lookAt } from '../../src/jobs/read.ts';
import { whyNotStart } from '../../src/jobs/stage.ts';
import { startJob } from '../../src/jobs/starter.ts';
import type { Target } from '../../src/jobs/starter.ts';
import { startTarget } from '../../src/jobs/transactions.ts';
import { viewJob } from '../../src/jobs/view.ts';
import { observeJob } from '../support/history/job-observer.ts';
import { judgeJob } from '../support/history/jobs.ts';
import type { CommandTrace } from '../support/history/jobs.ts';
import { at, nowMs, place, spec } from '../support/jobs.ts';
import { useAgent } from '../support/use-agent.ts';

const agent = useAgent();
const clock = {
  ...{ now: () => nowMs, monotonicMs: () => performance.now(), earliest: () => nowMs, latest: () => nowMs },
  sleep: (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms)),
};
let consul: Consul;
beforeAll(() => {
  consul = connect(consulSettings(agent.env), { clock, emit: () => undefined });
});
afterAll(() => consul.close());

const { task, params, home, offline, pauseMs, until, by, nonce } = spec;
const asked = { task, params, home, offline, pauseMs, until, by, nonce, at, maxFailures: 1 } as const;
const job = (id: string) => {
  const { signal } = new AbortController();
  return { consul, prefix: 'p', deps: { clock, random: Math.random }, signal, ref: { principal: 'ops', id } };
};

/** A node: accepts, starts when its stage opens, ends. A failing one ends badly. Undefined: it never began. */
async function serve(id: string, node: string, isFailing: boolean): Promise<CommandTrace | undefined> {
  const of = { ...job(id), node };
  const run = `r-${node}`;
  await acceptTarget(of);
  for (;;) {
    const look = await lookAt(of, of, { signal: of.signal });
    if (look.kind !== 'target') return undefined;
    const { target } = look;
    const asks = {
      stage: target.stage.value,
      targetStage: target.targetStage,
      document: target.document?.value,
    };
    const notNow = whyNotStart({ ...asks, until }, nowMs);
    if (notNow?.kind === 'never') break;
    // Many looks at once wake as the stage changes: here each just looks again.
    if (notNow) continue;
    const sent = await send(consul, startTarget(target, { run, bootId: 'b', at }), {
      signal: of.signal,
      rule: '',
    });
    if (sent.kind === 'refused') continue;
    const startMs = performance.now();
    await endTarget(of, { end: () => ({ state: isFailing ? 'failed' : 'good', endedAt: at }), isNode: true });
    return { node, run, startMs, lastMs: performance.now(), isOfJob: true };
  }
  await dropPointer(of);
  return undefined;
}

async function play(id: string, failing: readonly string[], during: () => Promise<unknown>) {
  const targets: Target[] = Array.from({ length: 12 }, (_, i) => [`web${i}`, i === 0 ? 0 : i < 4 ? 1 : 2]);
  const observer = observeJob(agent, place('p', id).keys.prefix);
  const started = startJob(job(id), { ref: { principal: 'ops', id }, spec: asked, targets });
  await started;
  const nodes = targets.map(([node]) => node);
  const [served] = await Promise.all([
    Promise.all(nodes.map((node) => serve(id, node, failing.includes(node)))),
    during(),
  ]);
  const looks = await observer.seen();
  await observer.stop();
  const commands = served.flatMap((one) => one ?? []);
  expect(judgeJob({ commands, looks, named: nodes, allowing: nodes })).toEqual([]);
  const view = await viewJob(job(id), { signal: new AbortController().signal });
  expect(view?.isOver).toBe(true);
  expect(Object.values(view?.counts ?? {}).reduce((sum, count) => sum + count, 0)).toBe(12);
  expect((await agent.kv.tree('p/.requests/ops/inbox/')).length).toBe(0);
  return { view, commands };
}

const nothing = () => Promise.resolve();

test('all good: stage by stage to its end', async () => {
  const { view, commands } = await play('good', [], nothing);
  expect(view).toMatchObject({ counts: { good: 12 }, job: { stage: { value: { kind: 'done' } } } });
  expect(commands).toHaveLength(12);
});

test('two failures where one is allowed stop it', async () => {
  const { view } = await play('failing', ['web1', 'web2'], nothing);
  expect(view).toMatchObject({
    failures: 2,
    job: { stage: { value: { kind: 'stopped', why: 'failures' } } },
  });
});

test('an operator stops it at any moment', async () => {
  const stops = () => stopJob({ ...job('stopped'), home }, { why: 'cancelled' });
  const { view } = await play('stopped', [], stops);
  expect(view?.job.stage.value.kind).toBe('stopped');
});
