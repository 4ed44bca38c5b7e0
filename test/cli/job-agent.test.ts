// Jobs from end to end: two nodes of one host, each with a real agent.
import { existsSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { eventually } from '../support/processes.ts';
import { agentOn } from '../support/runlock-agent.ts';
import { runlock, startRunlock } from '../support/runlock.ts';
import { stage } from '../support/stage.ts';
import { useAgent } from '../support/use-agent.ts';

const agent = useAgent();

const tasks = (script: string, group = 'ja/web') => ({
  'work.toml': `command = ["/bin/sh", "-c", ${JSON.stringify(script)}, "sh", "{v}"]
params.v = { match = "[a-z]+", default = "x" }
group = "${group}"
allow = ["ops"]
`,
});

async function nodes(...names: readonly string[]) {
  const script = '[ $1 = fail ] && exit 3; true';
  for (const name of names) {
    const node = agentOn(agent, name, {
      tasks: tasks(script),
      env: { RUNLOCK_REQUESTS: 'trust-everybody' },
    });
    node.start();
    await eventually(async () => expect((await node.shown())?.tasks).toHaveLength(1));
  }
}

const job = (...words: readonly string[]) => runlock(agent, ['job', ...words]);

test('a task runs on two nodes in turn; one that fails keeps the other from starting', async () => {
  await nodes('ja1', 'ja2');
  const good = await job('start', 'work', '--node', 'ja1,ja2', '--param', 'v=good', '--watch');
  expect(good.status).toBe(0);
  expect(good.stdout).toMatch(/ja1: good after \d+s\n/);
  expect(good.stdout).toMatch(/ja2: good after \d+s\n/);
  expect(good.stdout).toMatch(/ is over: 2 good\n$/);
  const { lastRuns } = JSON.parse((await runlock(agent, ['status', '--node', 'ja1', '--json'])).stdout) as {
    lastRuns: object[];
  };
  expect(lastRuns).toMatchObject([{ group: 'ja/web', outcome: 'succeeded' }]);

  const refused = await job('start', 'work', '--node', 'ja1', '--param', 'v=A B');
  expect(refused.status).toBe(4);
  expect(refused.stdout).toContain("ja1: refused: parameter v: 'A B' is not allowed");

  // ja2 is asked alone and waits, because the claim of ja1's failed run keeps the only slot.
  const failed = await job(
    'start',
    'work',
    '--node',
    'ja1',
    '--param',
    'v=fail',
    '--watch',
    '--id',
    'failed',
  );
  expect(failed.status).toBe(1);
  expect(failed.stdout).toMatch(/ja1: failed \(exit code 3\) after \d+s/);
  const waiting = startRunlock(agent, ['job', 'start', 'work', '--node', 'ja2', '--watch', '--id', 'waits']);
  await eventually(async () => {
    const { stdout } = await runlock(agent, ['status', '--node', 'ja2', '--json']);
    expect(JSON.parse(stdout)).toMatchObject({
      requests: [{ job: 'ops/waits', state: 'waiting', waitsIn: 'ja/web', place: 1 }],
      waiting: [{ group: 'ja/web', place: 1 }],
    });
  });
  // Who looks sees it in the queue; nobody writes it.
  const place = 'place 1 in the queue of ja/web: ';
  await eventually(() => expect(waiting.stdout()).toContain(`ja2: waiting: ${place}`), 30_000);
  expect((await job('show', 'waits')).stdout).toMatch(
    new RegExp(`^  ja2 +waiting +\\d+s +${place}.*ja1`, 'm'),
  );
  expect(JSON.parse((await job('show', 'waits', '--json')).stdout)).toMatchObject({ states: { waiting: 1 } });
  const stored = await agent.kv.get('runlock/ja/web/.jobs/ops/waits/nodes/ja2');
  expect(JSON.parse(stored?.Value ?? '')).toMatchObject({ rev: 0, state: 'accepted' });
  expect((await job('cancel', 'waits', '--reason', 'enough')).status).toBe(0);
  expect((await waiting.ended).status).toBe(3);
  await eventually(async () => {
    const { stdout } = await runlock(agent, ['status', '--node', 'ja2', '--json']);
    expect(JSON.parse(stdout)).toMatchObject({ requests: [], waiting: [] });
  });
});

test('who watches sees the last line of what runs, and of what has ended', async () => {
  const { folder } = stage();
  const node = agentOn(agent, 'ja5', {
    tasks: tasks(`echo half done; until [ -e ${folder}/end ]; do sleep 0.05; done; echo done`, 'ja/live'),
    env: { RUNLOCK_REQUESTS: 'trust-everybody' },
  });
  node.start();
  await eventually(async () => expect((await node.shown())?.tasks).toHaveLength(1));
  const watching = startRunlock(agent, ['job', 'start', 'work', '--node', 'ja5', '--watch']);
  await eventually(() => expect(watching.stdout()).toMatch(/ja5: running: half done\n/));
  writeFileSync(join(folder, 'end'), '');
  const { status, stdout } = await watching.ended;
  expect(status).toBe(0);
  expect(stdout).toMatch(/ja5: good after \d+s: done\n/);
});

test('a run that ends before its command says why to who watches, in status, in the log', async () => {
  const { folder } = stage();
  const held = startRunlock(agent, [
    ...['exec', '-g', 'ja/busy', '--node', 'other', '--', 'sh', '-c'],
    `touch ${folder}/on; until [ -e ${folder}/end ]; do sleep 0.05; done`,
  ]);
  const node = agentOn(agent, 'ja6', {
    tasks: { 'work.toml': `${tasks('true', 'ja/busy')['work.toml']}wait = "1s"\n` },
    env: { RUNLOCK_REQUESTS: 'trust-everybody' },
  });
  const running = node.start();
  await eventually(async () => expect((await node.shown())?.tasks).toHaveLength(1));
  await eventually(() => expect(existsSync(join(folder, 'on'))).toBe(true));
  const watching = startRunlock(agent, ['job', 'start', 'work', '--node', 'ja6', '--id', 'busy', '--watch']);
  const why =
    /its last run ended before its command began: busy: no slot available in ja\/busy .* \(exit status 75\)/;
  await eventually(() => expect(watching.stdout()).toMatch(why), 30_000);
  expect((await job('show', 'busy')).stdout).toMatch(/ja6 +waiting .*its last run ended before/s);
  const status = JSON.parse((await runlock(agent, ['status', '--node', 'ja6', '--json'])).stdout) as object;
  expect(status).toMatchObject({
    requests: [{ state: 'waiting', why: expect.stringMatching(why) as string }],
  });
  expect(running.stderr()).toMatch(
    /job ops\/busy: the run of task work exited 75 after \ds: busy: .*; see .*\/ops\/busy\.work\.log\n/,
  );
  writeFileSync(join(folder, 'end'), '');
  expect((await held.ended).status).toBe(0);
  expect((await watching.ended).status).toBe(0);
  await eventually(() =>
    expect(running.stderr()).toMatch(/job ops\/busy: good on this node \(exit code 0\) after \ds\n/),
  );
});
