// Two runs of one node in different groups that name one service: the last one out ends the maintenance.
import { writeFileSync } from 'node:fs';
import { afterEach, beforeAll, describe, expect, test } from 'vitest';
import { succeeded } from '../support/consul-api.ts';
import { useAgent } from '../support/use-agent.ts';
import { eventually } from '../support/processes.ts';
import { runlock, startRunlock } from '../support/runlock.ts';
import { stage } from '../support/stage.ts';

const agent = useAgent({ name: 'web01' });
beforeAll(async () => {
  for (const name of ['web', 'db']) {
    const service = { Name: name, ID: `${name}-1`, Check: { TTL: '600s', Status: 'passing' } };
    succeeded(await agent.http('PUT', '/v1/agent/service/register', service), 'registering');
  }
});
afterEach(async () => {
  for (const path of ['service/maintenance/web-1', 'service/maintenance/db-1', 'maintenance'])
    succeeded(await agent.http('PUT', `/v1/agent/${path}?enable=false`), 'ending maintenance');
  await agent.kv.deleteTree('runlock/');
});

const GATE = ['--service', 'web', '--gate-stable', '0', '-w', '0'];
const args = (group: string, more: readonly string[] = []) => ['exec', '-g', group, ...GATE, ...more, '-v'];
const OUT = ['--maintenance'];

async function maintenances(): Promise<string[]> {
  const checks = succeeded(await agent.http('GET', '/v1/agent/checks'), 'checks').json() as object;
  return Object.keys(checks).filter((id) => id.startsWith('_'));
}
const WEB = ['_service_maintenance:web-1'];
const marks = () => agent.kv.keys('runlock/.gate/');

/** A run in the group that is out of service, and ends when it is told, with this code. */
async function out(group: string, code = 0, more: readonly string[] = OUT) {
  const { folder, lines } = stage();
  const script = `echo "$RUNLOCK_RUN_ID" >${folder}/run; until [ -e ${folder}/end ]; do sleep 0.05; done; exit ${code}`;
  const run = startRunlock(agent, [...args(group, more), '--', 'sh', '-c', script]);
  await eventually(() => expect(lines('run')).toHaveLength(1));
  return {
    run,
    id: lines('run')[0] ?? '',
    end: async () => {
      writeFileSync(`${folder}/end`, '');
      const ended = await run.ended;
      expect(ended.status, ended.stderr).toBe(code);
      return ended.stderr;
    },
  };
}

const good = async (group: string, more: readonly string[] = []) =>
  expect(await runlock(agent, [...args(group, more), '--', 'true'])).toMatchObject({ status: 0 });

// The one whose name the maintenance has ended it for both.
test.each([['the first one in'], ['the last one in']])(
  '%s ends first: it stays on, says for whom, and the other ends it',
  async (who) => {
    const a = await out('prod/a');
    const b = await out('prod/b');
    expect(await maintenances()).toEqual(WEB);
    const [first, last] = who === 'the first one in' ? [a, b] : [b, a];
    const stderr = await first.end();
    expect(stderr).toMatch(
      new RegExp(
        `web on web01 stays in maintenance: run ${last.id} of prod/. needs it \\(running\\), and ends it`,
      ),
    );
    expect(await maintenances()).toEqual(WEB);
    expect(await last.end()).toContain('web on web01 is out of maintenance');
    expect(await maintenances()).toEqual([]);
    expect(await marks()).toEqual([]);
  },
);

test('three at once, one with the whole node: each maintenance ends with the last that needs it', async () => {
  const a = await out('prod/a');
  const b = await out('prod/b', 0, ['--maintenance=node']);
  const c = await out('prod/c');
  await a.end();
  expect(await maintenances()).toEqual(['_node_maintenance', ...WEB]);
  await c.end();
  expect(await maintenances()).toEqual(['_node_maintenance']);
  await b.end();
  expect(await maintenances()).toEqual([]);
  expect(await marks()).toEqual([]);
});

test('one is killed (SIGKILL): its claim keeps the maintenance on until its next good run', async () => {
  const a = await out('prod/a');
  const b = await out('prod/b');
  a.run.signal('SIGKILL');
  await a.run.ended;
  await b.end();
  expect(await maintenances()).toEqual(WEB);
  await eventually(async () => {
    // Its guard ends what is left of it first.
    await good('prod/a');
    expect(await maintenances()).toEqual([]);
  });
  expect(await marks()).toEqual([]);
});

describe('one has failed', () => {
  test('its claim keeps the maintenance on when the other ends, also where a run names no service', async () => {
    const a = await out('prod/a', 3);
    const b = await out('prod/b');
    await a.end();
    await b.end();
    expect(await maintenances()).toEqual(WEB);
    expect(await runlock(agent, ['exec', '-g', 'prod/a', '--', 'false'])).toMatchObject({ status: 1 });
    await good('prod/b', OUT);
    expect(await maintenances()).toEqual(WEB);
    await good('prod/a');
    expect(await maintenances()).toEqual([]);
    expect(await marks()).toEqual([]);
  });

  test('release keeps it on while the other runs, and that one ends it', async () => {
    const a = await out('prod/a', 3);
    const b = await out('prod/b');
    await a.end();
    const released = await runlock(agent, ['release', 'prod/a']);
    expect(released).toMatchObject({ status: 0 });
    expect(released.stderr).toContain(`run ${b.id} of prod/b needs it`);
    expect(await maintenances()).toEqual(WEB);
    await b.end();
    expect(await maintenances()).toEqual([]);
    expect(await marks()).toEqual([]);
  });

  test('gate leave ends it, and what it left behind keeps no later maintenance on', async () => {
    await (await out('prod/a', 3)).end();
    expect(await runlock(agent, ['gate', 'leave', '--service', 'web'])).toMatchObject({ status: 0 });
    expect(await maintenances()).toEqual([]);
    expect(await marks()).toEqual([]);
    await good('prod/b', OUT);
    expect(await maintenances()).toEqual([]);
  });

  test('somebody ended its maintenance with consul maint: it keeps no later one on', async () => {
    await (await out('prod/a', 3)).end();
    succeeded(await agent.http('PUT', '/v1/agent/service/maintenance/web-1?enable=false'), 'maintenance');
    await good('prod/b', OUT);
    expect(await maintenances()).toEqual([]);
    expect(await marks()).toEqual([]);
  });

  test('without a hold nothing stands behind it: the next good run ends it, in whatever group', async () => {
    await (await out('prod/a', 3, [...OUT, '--hold', 'none'])).end();
    expect(await maintenances()).toEqual(WEB);
    await good('prod/b');
    expect(await maintenances()).toEqual([]);
    expect(await marks()).toEqual([]);
  });
});

test('a good run that had gone out and leaves it on warns of that, with what ends it', async () => {
  const failed = await out('prod/a', 3);
  await failed.end();
  const quiet = ['exec', '-g', 'prod/b', ...GATE, ...OUT, '--', 'true'];
  const ended = await runlock(agent, quiet);
  expect(ended).toMatchObject({ status: 0 });
  expect(ended.stderr).toContain(
    `web on web01 stays in maintenance: run ${failed.id} of prod/a needs it (failed); the node's next successful run of prod/a with --service web ends it; to end it by hand: 'runlock gate leave --service web'`,
  );
  expect(await maintenances()).toEqual(WEB);
});

describe('a mark that can’t be read', () => {
  const key = 'runlock/.gate/.out/web01/odd';
  const advice = `${key} can't be read; if a newer runlock wrote it, that run ends the maintenance; otherwise run 'consul kv delete ${key}', then 'runlock gate leave --service web'`;

  test.each(['rubbish{', '{"v":99}', '[]'])(
    '%s: each that leaves maintenance on names its key, and deleting that helps',
    async (value) => {
      await agent.kv.put(key, value);
      const commands = [
        ['exec', '-g', 'prod/b', ...GATE, ...OUT, '--', 'true'],
        ['gate', 'leave', '--service', 'web'],
        ['release', 'prod/none'],
      ];
      for (const command of commands) {
        const ended = await runlock(agent, command);
        expect(ended).toMatchObject({ status: 0 });
        expect(ended.stderr).toContain(advice);
        expect(ended.stdout + ended.stderr).not.toContain('under way');
        expect(ended.stderr).not.toContain('--service auto');
      }
      expect(await maintenances()).toEqual(WEB);
      await agent.kv.delete(key);
      expect(await runlock(agent, ['gate', 'leave', '--service', 'web'])).toMatchObject({ status: 0 });
      expect(await maintenances()).toEqual([]);
    },
  );
});

describe('by hand', () => {
  const byHand = (action: string) =>
    runlock(agent, ['gate', action, '--service', 'web', '--gate-stable', '0']);

  test('what was entered by hand is left by hand, whatever runs end well meanwhile', async () => {
    expect(await byHand('enter')).toMatchObject({ status: 0 });
    const a = await out('prod/a');
    expect(await a.end()).toContain(
      "web on web01 stays in maintenance: it was set with 'runlock gate enter'; to end it: 'runlock gate leave --service web'",
    );
    expect(await maintenances()).toEqual(WEB);
    expect(await byHand('leave')).toMatchObject({ status: 0 });
    expect(await maintenances()).toEqual([]);
    expect(await marks()).toEqual([]);
  });

  test('gate leave under a run leaves it on, and says so; the run ends it', async () => {
    const a = await out('prod/a');
    const left = await byHand('leave');
    expect(left).toMatchObject({
      ...{ status: 0, stdout: 'web01 stays in maintenance: an active run needs it\n' },
    });
    expect(left.stderr).toContain(
      `web of web01 stays in maintenance: run ${a.id} of prod/a needs it (running)`,
    );
    expect(await maintenances()).toEqual(WEB);
    await a.end();
    expect(await maintenances()).toEqual([]);
  });

  test('inside a run, gate enter and gate leave are that run’s', async () => {
    const { folder, lines } = stage();
    const program = process.env['RUNLOCK_BIN'] ?? `${process.cwd()}/build/binary/runlock-linux-x64`;
    const gate = (action: string) =>
      `${program} gate ${action} --service web --gate-stable 0 >>${folder}/said 2>&1`;
    const inside = (script: string) =>
      runlock(agent, ['exec', '-g', 'prod/a', '-w', '0', '--', 'sh', '-c', script]);
    expect(await inside(`${gate('enter')}; ${gate('leave')}`)).toMatchObject({ status: 0 });
    expect(lines('said').at(-1)).toBe('web01 is back from maintenance: web');
    expect(await inside(`${gate('enter')}; exit 4`)).toMatchObject({ status: 4 });
    // Its claim keeps it, as that of any run that failed.
    await good('prod/b', OUT);
    expect(await maintenances()).toEqual(WEB);
    await good('prod/a');
    expect(await maintenances()).toEqual([]);
    expect(await marks()).toEqual([]);
  });
});
