// What a waiting run shows of those who have the slots: each change of it, as soon as it happens.
import { randomUUID } from 'node:crypto';
import { describe, expect, onTestFinished, test } from 'vitest';
import { useAgent } from '../support/use-agent.ts';
import { groupOf } from '../support/group.ts';
import { eventually } from '../support/processes.ts';
import { startProxy } from '../support/proxy.ts';
import type { Match } from '../support/proxy.ts';
import { runlock, startRunlock } from '../support/runlock.ts';
import { startInTerminal } from '../support/terminal.ts';

const agent = useAgent();

const owner = (group: string, slot = 0) => `runlock/${group}/.slot/${slot}/owner`;

/** A claim as runlock stores it. */
const claim = (fields: object) =>
  JSON.stringify({
    ...{ v: 1, node: 'web01', state: 'running', run: 'r1', since: new Date().toISOString(), command: 'sh' },
    ...{ hold: 'forever', pid: 1, startTime: '1', bootId: 'another' },
    ...fields,
  });

/** A run of another host, and how its session ends. */
async function running(group: string, fields: object = {}, slot = 0) {
  const made = await agent.http('PUT', '/v1/session/create', {
    Behavior: 'delete',
    TTL: '3600s',
    LockDelay: '0s',
  });
  const { ID } = made.json() as { ID: string };
  const run = { run: randomUUID(), ...fields };
  await agent.kv.put(owner(group, slot), claim(run));
  const lock = `runlock/${group}/.slot/${slot}/lock`;
  await agent.kv.put(lock, JSON.stringify({ v: 1, run: run.run }), { acquire: ID });
  return {
    becomes: (more: object) => agent.kv.put(owner(group, slot), claim({ ...run, ...more })),
    endSession: () => agent.http('PUT', `/v1/session/destroy/${ID}`),
  };
}

const exec = (group: string, ...more: string[]) =>
  groupOf(agent, group).words('web02', ...more, '--', 'true');

describe('the live line', () => {
  test.each([
    ['forever', 'counts as abandoned'],
    ['none', 'may be taken over'],
  ])('a holder that has lost its session (hold %s): since when, and what comes of it', async (hold, then) => {
    const group = `line/${hold}`;
    const holder = await running(group, { hold });
    const wide = (command: string) => `stty cols 160; ${command}`;
    const screen = startInTerminal(agent, exec(group), { shell: wide });
    await screen.shows(/place 1 · web01 running sh for \d+s/);
    await holder.endSession();
    await screen.shows(new RegExp(`· web01 lost its session 0s ago; ${then} in (?:59s|1m) \\(sh\\)`));
    await screen.shows(new RegExp(`· web01 lost its session [23]s ago; ${then} in 5[67]s \\(sh\\)`));
  });

  test('a holder that fails meanwhile is said to have failed at once, not at the end of --wait', async () => {
    const holder = await running('line/fails');
    const screen = startInTerminal(agent, exec('line/fails', '-w', '1h'));
    await screen.shows(/web01 running sh/);
    await holder.becomes({ state: 'failed', exitCode: 3 });
    await holder.endSession();
    await screen.shows(/· web01 failed \d+s ago \(sh\)/);
  });

  test('one that keeps the group from moving is named before one that runs', async () => {
    await running('line/two');
    const second = await running('line/two', { node: 'web03' }, 1);
    const screen = startInTerminal(agent, exec('line/two', '-n', '2'));
    await screen.shows(/· web01 running sh for \d+s \(and 1 more\)/);
    await second.becomes({ node: 'web03', state: 'failed', exitCode: 3 });
    await screen.shows(/· web03 failed \d+s ago \(sh\) \(and 1 more\)/);
  });

  test('its place falls as those before it are granted, and when the one before it gives up', async () => {
    await runlock(agent, ['acquire', 'line/place', '--node', 'web09']);
    const queued = (count: number) =>
      eventually(async () => expect(await agent.kv.keys('runlock/line/place/.queue/')).toHaveLength(count));
    const before = [];
    for (const node of ['web03', 'web04', 'web05']) {
      const args = ['exec', '-g', 'line/place', '--node', node, '--', 'sleep', '100'];
      before.push(startRunlock(agent, args));
      await queued(before.length);
    }
    const screen = startInTerminal(agent, exec('line/place'));
    await screen.shows(/place 4 · web09 held/);
    before[2]?.signal('SIGTERM');
    await screen.shows(/place 3 · web09 held/);
    await runlock(agent, ['release', 'line/place', '--node', 'web09']);
    await screen.shows(/place 2 · web03 running sleep/);
    await runlock(agent, ['release', 'line/place', '--owner', 'web03', '--force']);
    await screen.shows(/place 1 · web04 running sleep/);
  });
});

describe('-v', () => {
  async function through() {
    const proxy = await startProxy(agent);
    onTestFinished(proxy.close);
    return proxy;
  }

  /** A watch of the slots: the first is that of the first in the queue, the second what is said comes from. */
  const watch: Match = ({ path }) => /\/\.slot\/\?/.test(decodeURIComponent(path)) && path.includes('index=');

  test('says every change of who holds in a line, without a terminal too', async () => {
    const holder = await running('lines');
    const proxy = await through();
    const run = startRunlock(proxy, exec('lines', '-v'));
    await run.says(/web02 is waiting for a slot of lines \(slot 0: web01 running/);
    await proxy.seen(watch, 2);
    await holder.endSession();
    await run.says(
      /^runlock: slot 0 of lines: web01 lost its session, and sh may still be running there; the claim counts as abandoned in 1m$/m,
    );
    await holder.becomes({ state: 'failed', exitCode: 3 });
    await run.says(/^runlock: slot 0 of lines: web01 failed \(sh, exit 3\)$/m);
    await runlock(agent, ['release', 'lines', '--owner', 'web01']);
    expect(await run.ended).toMatchObject({ status: 0 });
  });

  test('as JSON: which slot, who, and in which state', async () => {
    const holder = await running('json');
    const proxy = await through();
    const run = startRunlock(proxy, exec('json', '-v', '--log-format', 'json'));
    await proxy.seen(watch, 2);
    await holder.becomes({ state: 'failed', exitCode: 3 });
    await run.says(/"event":"holder"/);
    const line = run
      .stderr()
      .split('\n')
      .find((each) => each.includes('"event":"holder"'));
    expect(JSON.parse(line ?? '{}')).toMatchObject({
      ...{ level: 'debug', group: 'json', slot: 0, node: 'web01', state: 'failed' },
    });
  });

  test('without -v nothing is read for it, and nothing said', async () => {
    const holder = await running('quiet');
    const run = startRunlock(agent, exec('quiet', '-w', '2s'));
    await eventually(async () => expect(await agent.kv.keys('runlock/quiet/.queue/')).toHaveLength(1));
    await holder.becomes({ state: 'failed', exitCode: 3 });
    expect((await run.ended).stderr).toMatch(/^runlock: busy: [^\n]*\n$/);
  });
});
