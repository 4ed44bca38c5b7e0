// Rollouts from end to end: nodes of one host, each with a real agent.
import { writeFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { delayOf } from '../../src/jobs/stage.ts';
import { eventually } from '../support/processes.ts';
import { agentOn } from '../support/runlock-agent.ts';
import { runlock, startRunlock } from '../support/runlock.ts';
import { stage } from '../support/stage.ts';
import { useAgent } from '../support/use-agent.ts';

const agent = useAgent();

/** Nodes that serve the task `work` with three slots. */
async function serve(names: readonly string[], group: string, { more = '', script = 'sleep 0.3' } = {}) {
  const task = `command = ["/bin/sh", "-c", ${JSON.stringify(script)}, "sh", "{v}"]
params.v = { match = "[a-z]+", default = "x" }
group = "${group}"
slots = 3
allow = ["ops"]
${more}`;
  const nodes = names.map((name) =>
    agentOn(agent, name, {
      tasks: { 'work.toml': task },
      env: { RUNLOCK_REQUESTS: 'trust-everybody' },
    }),
  );
  for (const node of nodes) node.start();
  for (const node of nodes) await eventually(async () => expect((await node.shown())?.tasks).toHaveLength(1));
}

const job = (...words: readonly string[]) => runlock(agent, ['job', ...words]);
interface Target {
  readonly node: string;
  readonly state: string;
  readonly run: string;
  readonly startedAt: string;
  readonly endedAt: string;
}
const show = async (id: string) =>
  JSON.parse((await job('show', id, '--json')).stdout) as {
    readonly targets: readonly Target[];
    readonly states: object;
    readonly askedAt: string;
  };
const statusOf = async (node: string) =>
  JSON.parse((await runlock(agent, ['status', '--node', node, '--json'])).stdout) as {
    readonly lastRuns: readonly object[];
  };

/** Most that ran at the same time. */
const mostAtOnce = (targets: readonly Target[]) =>
  Math.max(
    ...targets.map(
      (one) =>
        targets.filter((other) => other.startedAt <= one.startedAt && other.endedAt > one.startedAt).length,
    ),
  );

test('--max-running lets so many run at once, whatever the slots allow', async () => {
  const { folder } = stage();
  const ends = `${folder}/end`;
  await serve(['jr1', 'jr2', 'jr3'], 'jr/web', { script: `until [ -e ${ends} ]; do sleep 0.1; done` });
  const words = ['--node', 'jr1,jr2,jr3', '--max-running', '1', '--id', 'one', '--watch'];
  const running = startRunlock(agent, ['job', 'start', 'work', ...words]);
  const keys = async (below: string) =>
    (await agent.kv.tree(`runlock/jr/web/${below}`)).map(({ Key }) => Key);
  await eventually(async () => expect(await keys('.jobs/ops/one/.queue/')).toHaveLength(2), 30_000);
  // The others have no slot of the group, and do not stand in its queue.
  await eventually(async () => expect((await show('one')).states).toMatchObject({ running: 1 }), 30_000);
  expect((await keys('.slot/')).filter((key) => key.endsWith('/owner'))).toHaveLength(1);
  expect(await keys('.queue/')).toEqual([]);
  writeFileSync(ends, '');
  expect((await running.ended).status).toBe(0);
  const { targets } = await show('one');
  expect(targets.map(({ state }) => state)).toEqual(['good', 'good', 'good']);
  expect(mostAtOnce(targets)).toBe(1);
  // Nothing of it stays taken, and nobody takes the job for a group.
  const left = await agent.kv.tree('runlock/jr/web/.jobs/ops/one/.slot/');
  expect(left.map(({ Key }) => Key)).toEqual([]);
  expect((await runlock(agent, ['status', '--json'])).stdout).not.toContain('.jobs');
  expect((await statusOf('jr1')).lastRuns).toMatchObject([{ group: 'jr/web', outcome: 'succeeded' }]);
});

test('--noop runs the command that only tries: a failed claim stays, no record changes', async () => {
  const noop = 'noop = ["/bin/sh", "-c", "echo would do {v}; [ {v} != odd ]"]';
  await serve(['jr4', 'jr5'], 'jr/try', { more: noop, script: 'exit 4' });
  await job('start', 'work', '--node', 'jr4', '--watch', '--id', 'real');
  const before = await statusOf('jr4');
  expect(before).toMatchObject({ lastRuns: [{ outcome: 'failed' }] });
  const tried = await job('start', 'work', '--node', 'jr4,jr5', '--noop', '--watch', '--id', 'try');
  expect(tried.status).toBe(0);
  expect(tried.stdout).toMatch(/jr4: good after \d+s: would do x\n/);
  const after = await statusOf('jr4');
  const plain = (text: object) => JSON.stringify(text).replaceAll(/"(?:at|\w+Ms)":[^,}]+/g, '');
  expect(plain(after.lastRuns)).toBe(plain(before.lastRuns));
  expect((await agent.kv.get('runlock/jr/try/.slot/0/owner'))?.Value).toContain('"state":"failed"');
  expect(await agent.kv.get('runlock/jr/try/.runs/jr5')).toBeUndefined();

  const odd = await job(
    'start',
    'work',
    '--node',
    'jr4,jr5',
    '--param',
    'v=odd',
    '--noop',
    '--watch',
    '--id',
    'odd',
    '--max-failures',
    '1',
  );
  expect(odd.status).toBe(1);
  expect((await show('odd')).states).toEqual({ failed: 2 });
});

test('--splay: a node waits for its own part of it after its stage opens', async () => {
  const names = ['jr6', 'jr7'];
  await serve(names, 'jr/splay', { script: 'true' });
  const ran = await job('start', 'work', '--node', names.join(), '--splay', '2s', '--watch', '--id', 'splay');
  expect(ran.status).toBe(0);
  const { targets, askedAt } = await show('splay');
  const parts = names.map((name) => delayOf(name, 2_000));
  expect(Math.max(...parts)).toBeGreaterThan(500);
  for (const [i, { startedAt }] of targets.entries())
    expect(Date.parse(startedAt) - Date.parse(askedAt)).toBeGreaterThanOrEqual(parts[i] ?? Infinity);
});
