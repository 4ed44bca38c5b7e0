// What an unused group has left in Consul goes; nothing that anybody needs.
import { randomUUID } from 'node:crypto';
import { describe, expect, test } from 'vitest';
import { createToken } from '../support/consul-api.ts';
import { groupOf } from '../support/group.ts';
import { eventually } from '../support/processes.ts';
import { startProxy } from '../support/proxy.ts';
import { runlock, startRunlock } from '../support/runlock.ts';
import { startInTerminal } from '../support/terminal.ts';
import { useAgent } from '../support/use-agent.ts';

const agent = useAgent({ acl: true });

const on = (group: string) => groupOf(agent, group);
const forget = (...args: string[]) => runlock(agent, ['forget', ...args]);

const record = (node: string, fields: object = {}) =>
  JSON.stringify({
    ...{ v: 1, node, run: 'r', outcome: 'succeeded', exitCode: 0, command: 'sh', slot: 0, waitedMs: 0 },
    ...{ ranMs: 0, endedAt: new Date().toISOString(), ...fields },
  });
const claim = (fields: object = {}) =>
  JSON.stringify({
    ...{ v: 1, node: 'web01', state: 'failed', run: randomUUID(), since: new Date().toISOString() },
    ...{ command: 'sh', hold: 'forever', exitCode: 1, pid: 1, startTime: '1', bootId: 'b', ...fields },
  });

const isTransaction = ({ path }: { path: string }) => path.startsWith('/v1/txn');

/** So many records of runs, in transactions of 64. */
async function fill(group: string, many: number): Promise<void> {
  const all = Array.from({ length: many }, (_, i) => `web${String(i).padStart(5, '0')}`);
  for (let from = 0; from < all.length; from += 64) {
    const operations = all.slice(from, from + 64).map((node) => ({
      KV: {
        ...{ Verb: 'set', Key: `runlock/${group}/.runs/${node}` },
        Value: Buffer.from(record(node)).toString('base64'),
      },
    }));
    expect((await agent.kv.txn(operations)).status).toBe(200);
  }
}

describe('an unused group', () => {
  test('goes with all that its runs have left; groups below it stay, and are named', async () => {
    await on('old').exec('web01', '--', 'true');
    await on('old').exec('web02', '--', 'true');
    await on('old/web').exec('web01', '--', 'true');
    expect((await on('old').keys()).length).toBeGreaterThan(4);
    expect(await forget('old', '--force')).toEqual({
      ...{ status: 0, stderr: '' },
      stdout: 'deleted old: the last runs of 2 nodes and 2 other keys\nkept the groups below old: old/web\n',
    });
    expect((await on('old').keys()).every((key) => key.startsWith('web/'))).toBe(true);
    expect((await runlock(agent, ['status', 'old', '--json'])).stdout).toContain('"known": false');
  });

  test('may be forgotten again: nothing is stored then, which is no error', async () => {
    expect(await forget('nobody', '--force', '--json')).toMatchObject({ status: 0, stderr: '' });
    const { stdout } = await forget('-g', 'nobody', '--json');
    expect(JSON.parse(stdout)).toEqual({
      ...{ v: 1, prefix: 'runlock', group: 'nobody', forgotten: [], keys: 0, below: [] },
    });
    expect((await forget('nobody')).stdout).toBe('nothing is stored for nobody; nothing was deleted\n');
  });

  test('goes with marks, locks and folders that nobody holds, rubbish, and a freeze that is over', async () => {
    const past = new Date(Date.now() - 3_600_000).toISOString();
    const freeze = { v: 1, by: 'anna', reason: 'x', since: past, until: past };
    const away = { by: 'anna', at: new Date(Date.now() - 7_200_000).toISOString() };
    const mark = { v: 1, run: 'r', since: past, pid: 1, startTime: '1', bootId: 'b', away };
    for (const [key, value] of [
      ...[
        ['.freeze', JSON.stringify(freeze)],
        ['.node/web01', JSON.stringify(mark)],
        ['.node/web02', 'rubbish'],
      ],
      ...[
        ['', ''],
        ['.slot/', ''],
        ['.slot/0/', ''],
        ['.slot/0/lock', 'stray'],
        ['.tail', 'rubbish'],
        ['.runs/web03', 'rubbish'],
      ],
    ] as const)
      await agent.kv.put(`runlock/rubbish/${key}`, value);
    const { status, stdout } = await forget('rubbish', '--force', '--json');
    expect({ status, ...(JSON.parse(stdout) as object) }).toMatchObject({
      status: 0,
      forgotten: ['web03'],
      keys: 9,
    });
    expect(await on('rubbish').keys()).toEqual([]);
  });

  test.each(['.queue/', '.node/', '.runs/', '.slot/', '.slot/0/', ''])(
    'goes with the empty key of the folder %s, as Consul’s web UI makes one',
    async (folder) => {
      const name = `folder${folder.replaceAll(/\W/g, '-')}`;
      await agent.kv.put(`runlock/${name}/${folder}`, '');
      await agent.kv.put(`runlock/${name}/.tail`, 'rubbish');
      const { stdout } = await runlock(agent, ['status', name, '--json']);
      expect(JSON.parse(stdout)).toMatchObject({ groups: [{ state: 'idle', queue: [] }] });
      expect((await forget(name, '--force')).status).toBe(0);
      expect(await on(name).keys()).toEqual([]);
    },
  );

  test('of ten thousand nodes goes in transactions of 60 operations at most, the tail last', async () => {
    await using proxy = await startProxy(agent);
    await fill('many', 10_000);
    await agent.kv.put('runlock/many/.tail', JSON.stringify({ v: 1, session: 's' }));
    const done = await runlock({ env: proxy.env }, ['forget', 'many', '--force']);
    expect(done).toEqual({
      ...{ status: 0, stderr: '' },
      stdout: 'deleted many: the last runs of 10,000 nodes and 1 other key\n',
    });
    expect(await on('many').keys()).toEqual([]);
    const sent = proxy.requests.filter(isTransaction);
    expect(sent.length).toBe(Math.ceil(10_001 / 29));
  });
});

describe('a group in use is refused, with what uses it, and keeps all', () => {
  const put = (group: string, key: string, value: string) => agent.kv.put(`runlock/${group}/${key}`, value);
  const now = new Date().toISOString();
  test.each<[string, string, string, RegExp]>([
    ['claim', '.slot/0/owner', claim(), /web01 has a claim on slot 0 \(failed\)/],
    [
      'claim past its hold',
      '.slot/3/owner',
      claim({ heldUntil: '2020-01-01T00:00:00Z' }),
      /web01 has a claim on slot 3/,
    ],
    ['unreadable claim', '.slot/0/owner', '{"v":9}', /slot 0 has an unreadable claim/],
    [
      'ticket',
      '.queue/x',
      JSON.stringify({ v: 1, node: 'web07', run: 'r', since: now, command: 'c', pid: 1 }),
      /web07 is waiting/,
    ],
    [
      'freeze',
      '.freeze',
      JSON.stringify({ v: 1, by: 'anna', reason: 'disks', since: now }),
      /the group is frozen by anna \(disks\)/,
    ],
    ['unreadable freeze', '.freeze', 'rubbish', /the freeze of the group is unreadable/],
    [
      'mark of a run sent away',
      '.node/web08',
      JSON.stringify({
        v: 1,
        run: 'r',
        since: now,
        pid: 1,
        startTime: '1',
        bootId: 'b',
        away: { by: 'anna', at: now },
      }),
      /web08 was removed from the queue \d+s ago/,
    ],
    ['key of a newer version', '.new/x', 'y', /\.new\/x is unknown to this version of runlock/],
  ])('%s', async (name, key, value, says) => {
    const group = `used/${name.replaceAll(' ', '-')}`;
    await put(group, '.runs/web01', record('web01'));
    await put(group, key, value);
    const { status, stdout, stderr } = await forget(group, '--force');
    expect({ status, stdout }).toEqual({ status: 75, stdout: '' });
    expect(stderr).toMatch(says);
    expect(stderr).toMatch(/ is in use: .*; nothing was deleted; see 'runlock status used\//);
    expect(await on(group).keys()).toHaveLength(2);
  });

  test('a run under way, and one that waits', async () => {
    const held = await on('busy').hold();
    const waiter = on('busy').start('web02', '--', 'true');
    await on('busy').waiting(1);
    const { status, stderr } = await forget('busy', '--force');
    expect(status).toBe(75);
    expect(stderr).toContain(
      'web02 is waiting; web01 has a claim on slot 0 (running); nothing was deleted; see',
    );
    await held.end();
    expect((await waiter.ended).status).toBe(0);
  });

  test('what uses it can be hostile: it is spelled out, on one line', async () => {
    const evil = '\u001b[2J\r\nx';
    await put('evil', '.freeze', JSON.stringify({ v: 1, by: evil, reason: evil, since: now }));
    // Consul takes such a name in a transaction alone.
    const strange = { Verb: 'set', Key: 'runlock/evil/.n\u001b[2J/x', Value: 'eA==' };
    expect((await agent.kv.txn([{ KV: strange }])).status).toBe(200);
    const { stderr } = await forget('evil', '--force');
    // eslint-disable-next-line no-control-regex -- these are what must not be there
    expect(stderr).toMatch(/^runlock: [^\u0000-\u001f\u007f-\u009f]+\n$/);
    expect(stderr).toContain(String.raw`\x1b[2J`);
  });
});

describe('a run that comes meanwhile', () => {
  test('is not harmed: the transaction is refused, says who it is, and takes nothing', async () => {
    await using proxy = await startProxy(agent);
    await on('meets').exec('web01', '--', 'true');
    // More than go in the transaction that takes `.tail`.
    await fill('meets', 60);
    let goOn: () => void = () => undefined;
    const until = new Promise<void>((resolve) => (goOn = resolve));
    proxy.rule({ match: isTransaction, times: 1, do: { until } });
    const forgetting = startRunlock({ env: proxy.env }, ['forget', 'meets', '--force']);
    await proxy.seen(isTransaction);
    const held = await on('meets').hold('web02');
    goOn();
    const { status, stderr } = await forgetting.ended;
    expect(status).toBe(75);
    expect(stderr).toMatch(/meets is in use: .*web02 has a claim on slot 0 \(running\); nothing was deleted/);
    expect(await on('meets').keys('.runs/')).toHaveLength(61);
    await held.end();
    expect(await on('meets').lastRun('web02')).toMatchObject({ outcome: 'succeeded' });
  });
});

test('an answer that is lost is no fault: what it did counts, and the rest goes too', async () => {
  await using proxy = await startProxy(agent);
  await fill('lost', 60);
  proxy.rule({ match: isTransaction, times: 1, do: 'drop-after' });
  const { status, stdout } = await runlock({ env: proxy.env }, ['forget', 'lost', '--force', '--json']);
  expect({ status, ...(JSON.parse(stdout) as object) }).toMatchObject({ status: 0, keys: 60 });
  expect(await on('lost').keys()).toEqual([]);
});

describe('killed in the middle', () => {
  test('it leaves a group that runs work in, and a later forget ends what it began', async () => {
    await using proxy = await startProxy(agent);
    await fill('torn', 100);
    await agent.kv.put('runlock/torn/.tail', JSON.stringify({ v: 1, session: 's' }));
    let sent = 0;
    proxy.rule({ match: (request) => isTransaction(request) && (sent += 1) > 2, do: 'hang' });
    const forgetting = startRunlock({ env: proxy.env }, ['forget', 'torn', '--force']);
    await proxy.seen(isTransaction, 3);
    forgetting.signal('SIGKILL');
    await forgetting.ended;
    const left = await on('torn').keys();
    expect(left).toHaveLength(101 - 2 * 29);
    expect(left).toContain('.tail');
    expect((await on('torn').exec('web09', '--wait', '0', '--', 'true')).status).toBe(0);
    expect((await forget('torn', '--force')).stdout).toMatch(
      /^deleted torn: the last runs of 43 nodes and \d other keys\n$/,
    );
    expect(await on('torn').keys()).toEqual([]);
  });
});

describe('asks first', () => {
  test('without a terminal, and without --force, it is refused, and says what would go', async () => {
    await on('ask').exec('web01', '--', 'true');
    const { status, stderr } = await forget('ask');
    expect(status).toBe(75);
    expect(stderr).toMatch(
      /^runlock: this deletes everything stored for ask: 1 record of last runs and 2 other keys; to confirm: 'runlock forget ask --force'\n$/,
    );
    expect(await on('ask').lastRun('web01')).toBeDefined();
  });

  test('on a terminal a yes does it, and anything else nothing', async () => {
    await on('terminal').exec('web01', '--', 'true');
    const no = startInTerminal(agent, ['forget', 'terminal']);
    await no.shows(/1 record of last runs and 2 other keys\.\r+\nType yes to continue: /);
    no.type('y\n');
    expect(await no.ended).toBe(75);
    expect(no.screen()).toContain('nothing was deleted');
    expect(await on('terminal').lastRun('web01')).toBeDefined();
    const yes = startInTerminal(agent, ['forget', 'terminal']);
    await yes.shows(/Type yes/);
    yes.type('yes\n');
    expect(await yes.ended).toBe(0);
    expect(await on('terminal').keys()).toEqual([]);
  });

  test('a yes is for what was shown: a run that came and went meanwhile is not forgotten', async () => {
    await on('shown').exec('web01', '--', 'true');
    const asks = startInTerminal(agent, ['forget', 'shown']);
    await asks.shows(/Type yes/);
    await on('shown').exec('web02', '--', 'true');
    asks.type('yes\n');
    expect(await asks.ended).toBe(75);
    expect(asks.screen()).toMatch(/a run joined shown before the answer/);
    expect(await on('shown').lastRun('web02')).toBeDefined();
  });
});

describe('rights', () => {
  test.each([
    ['read', 'runlock/closed/other/'],
    ['write', 'runlock/closed/'],
  ] as const)('without %s it is refused, and the rule is named', async (policy, prefix) => {
    await agent.kv.put('runlock/closed/.runs/web01', record('web01'));
    const token = await createToken(agent.http, `key_prefix "${prefix}" { policy = "read" }`);
    const { status, stderr } = await runlock(agent, ['forget', 'closed', '--force'], {
      env: { CONSUL_HTTP_TOKEN: token },
    });
    expect(status).toBe(77);
    expect(stderr).toContain(`key_prefix "runlock/closed/" { policy = "${policy}" }`);
  });

  test.each(['.slot', '.queue', '.node'])(
    'where %s is hidden from the token nothing is deleted',
    async (name) => {
      const group = on(`hidden${name}`);
      await group.exec('web01', '--', 'false');
      const rules = `key_prefix "runlock/${group.name}/" { policy = "write" }
      key_prefix "runlock/${group.name}/${name}/" { policy = "deny" }`;
      const env = { CONSUL_HTTP_TOKEN: await createToken(agent.http, rules) };
      const before = await group.keys();
      const { status, stderr } = await runlock(agent, ['forget', group.name, '--force'], { env });
      expect({ status, keys: await group.keys() }).toEqual({ status: 77, keys: before });
      expect(stderr).toContain(`key_prefix "runlock/${group.name}/${name}/" { policy = "read" }`);
    },
  );

  test('write on the group alone is enough', async () => {
    await on('open').exec('web01', '--', 'true');
    const token = await createToken(agent.http, 'key_prefix "runlock/open/" { policy = "write" }');
    const env = { CONSUL_HTTP_TOKEN: token };
    expect((await runlock(agent, ['forget', 'open', '--force'], { env })).status).toBe(0);
    await eventually(async () => expect(await on('open').keys()).toEqual([]));
  });
});

test('without a group it is wrong usage, and RUNLOCK_GROUP names none', async () => {
  const { status, stderr } = await runlock(agent, ['forget'], { env: { RUNLOCK_GROUP: 'old' } });
  expect(status).toBe(64);
  expect(stderr).toMatch(/missing <group>/);
});
