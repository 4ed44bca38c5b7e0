// A run that waits in a queue lets other runs of its node pass, and never starts beside one of them (docs/adr/0050).
import { readdirSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { askFor } from '../support/asked-jobs.ts';
import { groupOf } from '../support/group.ts';
import { eventually } from '../support/processes.ts';
import { agentOn } from '../support/runlock-agent.ts';
import { runlock } from '../support/runlock.ts';
import { stage } from '../support/stage.ts';
import { turnsOf } from '../support/turns.ts';
import { useAgent } from '../support/use-agent.ts';

const agent = useAgent();
let count = 0;

/** Groups whose runs of one node take turns; `steps` notes the begin and the end of each run, which must never overlap. */
function setUp() {
  const env = turnsOf(`lent ${(count += 1)}`);
  const at = `lent${count}`;
  const group = (name: string) => groupOf(agent, `${at}/${name}`, { env });
  const { folder, lines } = stage();
  const steps = ['sh', '-c', `echo "+ $1" >>${folder}/notes; sleep 0.1; echo "- $1" >>${folder}/notes`, 'sh'];
  return {
    group,
    note: (name: string) => ['--', ...steps, name],
    /** Who ran, one after the other. */
    ran: () => {
      const notes = lines('notes');
      notes.forEach((note, line) => {
        if (line % 2 === 1) expect(note).toBe(notes[line - 1]?.replace('+', '-'));
      });
      return notes.filter((note) => note.startsWith('+')).map((note) => note.slice(2));
    },
    files: () => readdirSync(env.RUNLOCK_TURN_DIR).sort(),
    thaw: async (name: string) =>
      expect(await runlock(agent, ['thaw', `${at}/${name}`])).toMatchObject({ status: 0 }),
  };
}

/** `web02` has failed in the group, whose only slot its claim keeps. */
async function block(group: ReturnType<typeof groupOf>) {
  expect((await group.exec('web02', '--hold', 'forever', '--', 'false')).status).toBe(1);
  return async () =>
    expect((await runlock(agent, ['release', group.name, '--owner', 'web02'])).status).toBe(0);
}

const FROZEN = /frozen by ops/;
const LEFT =
  /left the queue of lent\d+\/web, and queues again later: web01 is already running or queued in lent\d+\/db/;

describe('a run that waits in a group that is', () => {
  test('frozen: a run of another group goes at once; one of its own group waits behind it', async () => {
    const { group, note, ran, files, thaw } = setUp();
    const [web, db] = [group('web'), group('db')];
    await web.freeze('ops', 'migration');
    const waits = web.start('web01', '-v', ...note('waits'));
    await waits.says(FROZEN);
    expect(await db.exec('web01', '-w', '0', ...note('other'))).toMatchObject({ status: 0, stderr: '' });
    expect(await web.exec('web01', '-w', '300ms', ...note('same'))).toMatchObject({ status: 75, stderr: '' });
    const same = web.start('web01', '-v', ...note('same'));
    await same.says(
      /waiting without a slot of lent\d+\/web: web01 is already running or queued in lent\d+\/web/,
    );
    expect((await runlock(agent, ['status', web.name])).stdout).toMatch(/web01/);
    expect(await web.waiting()).toMatchObject([{ node: 'web01' }]);
    await thaw('web');
    expect([(await waits.ended).status, (await same.ended).status]).toEqual([0, 0]);
    expect(ran()).toEqual(['other', 'waits', 'same']);
    expect(files()).toEqual([]);
  });

  test('blocked: a run of another group goes at once', async () => {
    const { group, note, ran, files } = setUp();
    const [web, db] = [group('web'), group('db')];
    const clear = await block(web);
    const waits = web.start('web01', '-v', ...note('waits'));
    await waits.says(/waiting for a slot/);
    expect(await db.exec('web01', '-w', '10s', ...note('other'))).toMatchObject({ status: 0, stderr: '' });
    await clear();
    expect((await waits.ended).status).toBe(0);
    expect(ran()).toEqual(['other', 'waits']);
    expect(files()).toEqual([]);
  });

  test('frozen, and the node’s own claim is in it', async () => {
    const { group, note, ran, thaw } = setUp();
    const [web, db] = [group('web'), group('db')];
    expect((await web.exec('web01', '--hold', 'forever', '--', 'false')).status).toBe(1);
    await web.freeze('ops', 'migration');
    const waits = web.start('web01', '-v', ...note('waits'));
    await waits.says(FROZEN);
    const run = await db.hold('web01');
    await thaw('web');
    await waits.says(LEFT);
    expect(await web.sessions()).toEqual([]);
    expect(await web.claim()).toMatchObject({ state: 'failed' });
    await run.end();
    expect((await waits.ended).status).toBe(0);
    expect(ran()).toEqual(['waits']);
  });
});

describe('it can have a slot while another run of its node is under way', () => {
  test('it leaves the queue, so that other nodes go on, and queues again when that run has ended', async () => {
    const { group, note, ran, files, thaw } = setUp();
    const [web, db] = [group('web'), group('db')];
    await web.freeze('ops', 'migration');
    const waits = web.start('web01', '-v', ...note('waits'));
    await waits.says(FROZEN);
    const behind = web.start('web02', ...note('behind'));
    await web.waiting(2);
    const run = await db.hold('web01');
    await thaw('web');
    await waits.says(LEFT);
    expect((await behind.ended).status).toBe(0);
    expect(await web.tickets()).toEqual([]);
    expect(await web.sessions()).toEqual([]);
    await eventually(async () => {
      const { stdout } = await runlock(agent, ['status', web.name]);
      expect(stdout.replaceAll(/\s+/g, ' ')).toMatch(
        /another run of the node on its host: sh in lent\d+\/db/,
      );
    });
    await run.end();
    expect((await waits.ended).status).toBe(0);
    expect(ran()).toEqual(['behind', 'waits']);
    expect(files()).toEqual([]);
    expect(await web.keys()).toEqual(['.last', '.runs/web01', '.runs/web02', '.tail']);
  });

  test('it gives the slots of its other groups back before it waits', async () => {
    const { group, note, ran, files, thaw } = setUp();
    const [app, web, db] = [group('app'), group('web'), group('db')];
    await web.freeze('ops', 'migration');
    const waits = app.start('web01', '-v', '-g', web.name, ...note('waits'));
    await waits.says(FROZEN);
    expect(await app.claim()).toMatchObject({ node: 'web01' });
    const run = await db.hold('web01');
    await thaw('web');
    await waits.says(/left the queue of lent\d+\/app,lent\d+\/web, and queues again later/);
    for (const one of [app, web])
      expect(await one.exec('web02', '-w', '10s', ...note('web02'))).toMatchObject({ status: 0, stderr: '' });
    expect([await app.sessions(), await web.sessions()]).toEqual([[], []]);
    await run.end();
    expect((await waits.ended).status).toBe(0);
    expect(ran()).toEqual(['web02', 'web02', 'waits']);
    expect(files()).toEqual([]);
  });
});

describe('a run that has lent its turn', () => {
  test('is killed: nothing of it keeps others out', async () => {
    const { group, note, ran, files, thaw } = setUp();
    const web = group('web');
    await web.freeze('ops', 'migration');
    const waits = web.start('web01', '-v', '--', 'true');
    await waits.says(FROZEN);
    const same = web.start('web01', '-v', ...note('same'));
    await same.says(/waiting without a slot/);
    waits.signal('SIGKILL');
    await same.says(FROZEN);
    await thaw('web');
    expect((await same.ended).status).toBe(0);
    expect(ran()).toEqual(['same']);
    expect(files()).toEqual([]);
  });

  test('is stopped: others pass, and it starts nothing beside them', async () => {
    const { group, note, ran, thaw } = setUp();
    const [web, db] = [group('web'), group('db')];
    await web.freeze('ops', 'migration');
    const waits = web.start('web01', '-v', ...note('waits'));
    await waits.says(FROZEN);
    waits.signal('SIGSTOP');
    const run = await db.hold('web01');
    await thaw('web');
    waits.signal('SIGCONT');
    await waits.says(LEFT);
    expect(ran()).toEqual([]);
    await run.end();
    expect((await waits.ended).status).toBe(0);
    expect(ran()).toEqual(['waits']);
  });
});

test('behind other nodes in a queue it lends its turn after a while', async () => {
  const { group, note, ran } = setUp();
  const [web, db] = [group('web'), group('db')];
  const run = await web.hold('web02');
  const ahead = web.start('web03', '--', 'true');
  await web.waiting(1);
  const waits = web.start('web01', ...note('waits'));
  await web.waiting(2);
  expect(await db.exec('web01', ...note('other'))).toMatchObject({ status: 0, stderr: '' });
  await run.end();
  expect([(await ahead.ended).status, (await waits.ended).status]).toEqual([0, 0]);
  expect(ran()).toEqual(['other', 'waits']);
});

test('many runs of one node in groups that are frozen: all run once, one at a time', async () => {
  const { group, note, ran, files, thaw } = setUp();
  const groups = Array.from({ length: 6 }, (_, at) => group(`g${at}`));
  for (const each of groups) await each.freeze('ops', 'migration');
  const runs = groups.map((each, at) => each.start('web01', '-v', ...note(String(at))));
  for (const run of runs) await run.says(FROZEN);
  await Promise.all(groups.map((_, at) => thaw(`g${at}`)));
  for (const run of runs) expect((await run.ended).status).toBe(0);
  expect(ran().sort()).toEqual(['0', '1', '2', '3', '4', '5']);
  expect(files()).toEqual([]);
});

test('a job in a frozen group holds up no run of cron in another one', async () => {
  const [frozen, cron] = ['lent/job', 'lent/cron'].map((name) =>
    groupOf(agent, name, { env: turnsOf('job') }),
  );
  if (!frozen || !cron) throw new Error('two groups');
  await frozen.freeze('ops', 'migration');
  const task = `command = ["/bin/sh", "-c", "echo ran"]\nallow = ["ops"]\ngroup = "lent/job"\n`;
  const env = { RUNLOCK_REQUESTS: 'trust-everybody', ...turnsOf('job') };
  const running = agentOn(agent, 'lent1', { tasks: { 't.toml': task }, env }).start();
  await running.says(/is ready/);
  const job = await askFor(agent, 'lent/job', { targets: [['lent1', 0]] });
  await frozen.waiting();
  const run = await cron.hold('lent1', '-w', '30s');
  expect((await job.document())?.state).toBe('accepted');
  expect((await runlock(agent, ['thaw', 'lent/job'])).status).toBe(0);
  const record = () => agent.kv.get('runlock/lent/job/.outside/lent1');
  await eventually(async () => expect((await record())?.Value).toContain('"turn":{'), 20_000);
  expect(await frozen.tickets()).toEqual([]);
  await run.end();
  expect(await job.becomes('good')).toMatchObject({ exitCode: 0 });
});
