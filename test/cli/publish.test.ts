// `exec --publish` and `--during`: what becomes of the states of a run, by how it ends.
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { groupOf } from '../support/group.ts';
import { startProxy } from '../support/proxy.ts';
import type { ProxyRequest } from '../support/proxy.ts';
import { STEPS } from '../support/proxy-steps.ts';
import { runlock } from '../support/runlock.ts';
import { stage } from '../support/stage.ts';
import { useAgent } from '../support/use-agent.ts';

const agent = useAgent({ name: 'node1' });

/** A state, as `state get --json` shows it. */
async function stateAt(path: string): Promise<Record<string, unknown>> {
  const { stdout } = await runlock(agent, ['state', 'get', path, '--json']);
  return JSON.parse(stdout) as Record<string, unknown>;
}

const stored = async (path: string) => {
  const pair = await agent.kv.get(`runlock/.state/${path}/.value`);
  if (!pair) return undefined;
  const document = JSON.parse(pair.Value) as Record<string, unknown>;
  return { ...document, index: pair.ModifyIndex } as Readonly<Record<string, unknown>>;
};

/** Whether a ticket or a claim that is written names the states of the run. */
const saysToPublish = ({ body }: ProxyRequest) =>
  [...body.matchAll(/"Value":"([^"]*)"/g)].some(([, value = '']) =>
    Buffer.from(value, 'base64').toString().includes('"publish":["pn/'),
  );

describe('--publish, after a good run', () => {
  test('sets each state in the transaction that records the run, and says by whom it was set', async () => {
    const group = groupOf(agent, 'pub/good');
    const { status } = await group.exec(
      'web01',
      '--publish',
      'pg/a=1',
      '--publish',
      'pg/b=x=y',
      '--',
      'true',
    );
    expect(status).toBe(0);
    const record = await agent.kv.get(group.key('.runs/web01'));
    const { run } = JSON.parse(record?.Value ?? '') as { run: string };
    const a = await stored('pg/a');
    expect(a).toMatchObject({ value: '1', by: 'web01', run, published: true, index: record?.ModifyIndex });
    expect(Date.parse(String(a?.['at']))).toBeLessThanOrEqual(Date.now());
    expect(await stored('pg/b')).toMatchObject({ value: 'x=y', run, index: record?.ModifyIndex });
    expect(await stateAt('pg/a')).toMatchObject({ set: true, value: '1', by: 'web01', run, published: true });
  });

  test('is not there while the command runs', async () => {
    const group = groupOf(agent, 'pub/early');
    const holder = await group.hold('web01', '--publish', 'pe/a=1');
    expect(await stored('pe/a')).toBeUndefined();
    await holder.end();
    expect(await stored('pe/a')).toMatchObject({ value: '1' });
  });

  test('in several groups: one transaction records all of them, releases all slots and publishes', async () => {
    const [one, two] = [groupOf(agent, 'pub/two', { args: ['-g', 'pub/one'] }), groupOf(agent, 'pub/one')];
    expect((await one.exec('web01', '--publish', 'ps/a=1', '--', 'true')).status).toBe(0);
    const index = (await agent.kv.get(one.key('.runs/web01')))?.ModifyIndex;
    expect((await agent.kv.get(two.key('.runs/web01')))?.ModifyIndex).toBe(index);
    expect(await stored('ps/a')).toMatchObject({ index });
    expect([await one.claim(), await two.claim()]).toEqual([undefined, undefined]);
  });

  test('leaves a state that has the value alone: no watcher is woken', async () => {
    const group = groupOf(agent, 'pub/same');
    await runlock(agent, ['state', 'set', 'pm/a', '1']);
    const before = await stored('pm/a');
    expect((await group.exec('web01', '--publish', 'pm/a=1', '--', 'true')).status).toBe(0);
    expect(await stored('pm/a')).toEqual(before);
    expect(await group.lastRun('web01')).toMatchObject({ outcome: 'succeeded' });
  });

  test('makes a state last that would have ended, without a change', async () => {
    const group = groupOf(agent, 'pub/lasts');
    await runlock(agent, ['state', 'set', 'pl/a', '1', '--ttl', '1h']);
    const change = (await stored('pl/a'))?.['change'];
    await group.exec('web01', '--publish', 'pl/a=1', '--', 'true');
    expect(await stored('pl/a')).toMatchObject({ change });
    expect((await stored('pl/a'))?.['until']).toBeUndefined();
  });

  test('replaces another value, and what is no state at all, with a new change', async () => {
    const group = groupOf(agent, 'pub/other');
    await runlock(agent, ['state', 'set', 'po/a', '0']);
    await agent.kv.put('runlock/.state/po/b/.value', 'junk');
    const before = await stored('po/a');
    const words = ['--publish', 'po/a=1', '--publish', 'po/b=1'];
    expect((await group.exec('web01', ...words, '--', 'true')).status).toBe(0);
    const after = await stored('po/a');
    expect(after?.['value']).toBe('1');
    expect(after?.['change']).not.toBe(before?.['change']);
    expect(await stored('po/b')).toMatchObject({ value: '1' });
  });
});

describe('nothing is published', () => {
  test.each([
    ['a run that fails', ['--', 'false'], 1],
    ['a run that takes too long', ['--timeout', '100ms', '--', 'sleep', '60'], 124],
    ['a run that is about to reboot', ['--reboot-codes', '3', '--', 'sh', '-c', 'exit 3'], 3],
    ['a run that fails, with no hold', ['--hold', 'none', '--', 'false'], 1],
    ['a command that is not there', ['--', '/nowhere/command'], 127],
    ['a dry run', ['--dry-run', '--', 'true'], 0],
  ])('by %s', async (name, words, status) => {
    const path = `pn/${name.replaceAll(/\W/g, '-')}`;
    await using proxy = await startProxy(agent);
    const group = groupOf(agent, undefined, { env: proxy.env });
    const ended = await group.exec('web01', '--publish', `${path}=1`, ...words);
    expect(ended.status).toBe(status);
    expect(await stored(path)).toBeUndefined();
    // Nor does a run that only tries say that it will.
    expect(proxy.requests.some(saysToPublish)).toBe(name !== 'a dry run' && status !== 127);
  });

  test('by a run that a signal interrupts', async () => {
    const holder = await groupOf(agent, 'pub/signal').hold('web01', '--publish', 'pi/a=1');
    holder.signal('SIGTERM');
    expect((await holder.ended).status).toBe(143);
    expect(await stored('pi/a')).toBeUndefined();
  });

  test('by a run that is evicted', async () => {
    const holder = await groupOf(agent, 'pub/evict').hold('web01', '--publish', 'pv/a=1');
    await runlock(agent, ['release', 'pub/evict', '--owner', 'web01', '--force']);
    expect((await holder.ended).status).toBe(79);
    expect(await stored('pv/a')).toBeUndefined();
  });

  test('by a busy run', async () => {
    const group = groupOf(agent, 'pub/busy');
    const holder = await group.hold('web01');
    expect((await group.exec('web02', '-w', '0', '--publish', 'py/a=1', '--', 'true')).status).toBe(75);
    await holder.end();
    expect(await stored('py/a')).toBeUndefined();
  });

  test.each([
    [
      'another run has one of its slots',
      'other',
      /lost the lock of pub\/lost-other \(its claim names web02\)/,
    ],
    ['one of its claims is gone', 'gone', /lost the lock of pub\/lost-gone \(its claim is gone\)/],
    ['it was evicted from one group', 'evicted', /ops evicted the run from pub\/lost-evicted/],
  ])('if %s at its end: 79, and its other group is kept', async (_, how, says) => {
    await using proxy = await startProxy(agent);
    const name = `pub/lost-${how}`;
    const group = groupOf(agent, name, { args: ['-g', 'pub/z-other'], env: proxy.env });
    const holder = await group.hold('web01', '--publish', `px/${how}=1`);
    const open = proxy.rule({ match: STEPS.release, do: 'drop-before' });
    holder.tell();
    await proxy.seen(STEPS.release);
    const claim = await group.claim();
    const key = group.key('.slot/0/owner');
    if (how === 'gone') await agent.kv.delete(key);
    else {
      const changed = how === 'other' ? { node: 'web02', run: 'r2' } : { state: 'evicted', by: 'ops' };
      await agent.kv.put(key, JSON.stringify({ ...claim, ...changed }));
    }
    open();
    const { status, stderr } = await holder.ended;
    expect({ status }).toEqual({ status: 79 });
    expect(stderr).toMatch(says);
    expect(stderr).toContain('nothing was published');
    expect(await stored(`px/${how}`)).toBeUndefined();
    const other = groupOf(agent, 'pub/z-other');
    expect(await other.lastRun('web01')).toMatchObject({ outcome: 'lost' });
    expect(await other.claim()).toMatchObject({ state: 'failed', node: 'web01' });
    const outcome = how === 'evicted' ? 'evicted' : 'lost';
    expect(await group.lastRun('web01')).toMatchObject({ outcome });
    if (how === 'evicted') expect(await group.claim()).toBeUndefined();
    await other.exec('web01', '--', 'true');
  });
});

describe('--during', () => {
  test('is there from the start of the command on, and gone after a good run', async () => {
    const group = groupOf(agent, 'dur/good');
    const holder = await group.hold('web01', '--during', 'dg/mode=busy');
    const { run } = (await group.claim()) ?? {};
    const claim = { group: 'dur/good', slot: 0, root: run };
    expect(await stored('dg/mode')).toMatchObject({ value: 'busy', by: 'web01', run, while: claim });
    await holder.end();
    expect(await stored('dg/mode')).toBeUndefined();
  });

  test('is not there while the run waits', async () => {
    const group = groupOf(agent, 'dur/waits');
    const holder = await group.hold('web01');
    const second = group.start('web02', '--during', 'dw/mode=busy', '--', 'true');
    await group.waiting(1);
    expect(await stored('dw/mode')).toBeUndefined();
    await holder.end();
    expect((await second.ended).status).toBe(0);
  });

  test('gives way to what the same run publishes on the same path', async () => {
    const group = groupOf(agent, 'dur/both');
    const words = ['--during', 'db/mode=busy', '--publish', 'db/mode=ready'];
    const holder = await group.hold('web01', ...words);
    expect(await stored('db/mode')).toMatchObject({ value: 'busy' });
    await holder.end();
    expect(await stored('db/mode')).toMatchObject({ value: 'ready', published: true });
    expect((await stored('db/mode'))?.['while']).toBeUndefined();
  });

  test('that somebody else has set meanwhile is left to them', async () => {
    const group = groupOf(agent, 'dur/theirs');
    const holder = await group.hold('web01', '--during', 'dt/mode=busy');
    expect((await runlock(agent, ['state', 'set', 'dt/mode', 'mine'])).status).toBe(0);
    await holder.end();
    expect(await stored('dt/mode')).toMatchObject({ value: 'mine' });
  });

  test('of a command that can not be started is as if it had never been', async () => {
    const group = groupOf(agent, 'dur/none');
    await runlock(agent, ['state', 'set', 'dn/mode', 'before']);
    const before = await stored('dn/mode');
    const script = join(stage().folder, 'script');
    writeFileSync(script, '#!/nowhere/interpreter\n', { mode: 0o755 });
    const words = ['--during', 'dn/mode=busy', '--during', 'dn/new=1'];
    expect((await group.exec('web01', ...words, '--', script)).status).toBeGreaterThanOrEqual(126);
    expect({ ...(await stored('dn/mode')), index: 0 }).toEqual({ ...before, index: 0 });
    expect(await stored('dn/new')).toBeUndefined();
  });
});

describe('wrong usage is one line and 64, and nothing is asked for', () => {
  test.each([
    [['--publish', 'x'], "--publish x: has no value; write PATH=VALUE, as in 'db/schema=42'"],
    [['--during', '.x=1'], "--during .x=1: '.x' is not a valid state path"],
    [['--publish', `x=${'y'.repeat(4097)}`], 'this value has 4,097 bytes; 4,096 are allowed'],
    [['--publish', 'x=1', '--publish', 'x=2'], '--publish sets x twice, to 1 and to 2'],
    [
      Array.from({ length: 53 }, (_, i) => ['--publish', `x/${i}=1`]).flat(),
      '--publish and --during set 53 states, but with 1 group one transaction has room for 52',
    ],
    [
      [...Array.from({ length: 10 }, (_, i) => ['-g', `ten/${i}`]).flat(), '--publish', 'x=1'],
      "a run in 11 groups can't publish: one transaction has room for 9 groups at most",
    ],
    [
      Array.from({ length: 52 }, (_, i) => ['--publish', `x/${i}=${'"'.repeat(4_096)}`]).flat(),
      'the states of --publish take 639,184 bytes, as JSON in base64, but one transaction has room for 458,304; publish',
    ],
    [
      Array.from({ length: 30 }, (_, i) => ['--during', `x/${i}=${'\x01'.repeat(4_096)}`]).flat(),
      'the states of --during take 1,024,080 bytes, as JSON in base64, but one transaction has room for 458,304; publish',
    ],
    [
      Array.from({ length: 63 }, (_, i) => ['--when', `not:state:x/${i}`]).flat(),
      '--when names 63 states, but the transaction that starts the command has room for 62',
    ],
  ])('%#', async (words, says) => {
    const group = groupOf(agent, 'pub/usage');
    const { status, stdout, stderr } = await group.exec('web01', ...words, '--', 'echo', 'ran');
    expect({ status, stdout }).toEqual({ status: 64, stdout: '' });
    expect(stderr).toContain(says);
    expect(stderr.trimEnd().split('\n')).toHaveLength(1);
    expect(await group.keys()).toEqual([]);
  });

  test('a value of exactly 4,096 bytes, with quotes and line breaks, is published as it is', async () => {
    const value = `"'\n\té`.padEnd(4_095, 'x');
    const group = groupOf(agent, 'pub/long');
    expect((await group.exec('web01', '--publish', `pz/a=${value}`, '--', 'true')).status).toBe(0);
    expect(await stored('pz/a')).toMatchObject({ value });
  });

  test('as much as is allowed fits Consul, with --during and --publish of different paths', async () => {
    const quotes = `"`.repeat(4_096);
    const long = (flag: string, folder: string, count: number) =>
      Array.from({ length: count }, (_, i) => [flag, `${folder}/${i}=${quotes}`]).flat();
    const group = groupOf(agent, 'pub/large');
    const words = [...long('--publish', 'pq', 37), ...long('--during', 'dq', 15)];
    const { status, stderr } = await group.exec(`web${'1'.repeat(200)}`, ...words, '--', 'true');
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
    expect(await agent.kv.keys('runlock/.state/pq/')).toHaveLength(37);
    expect(await agent.kv.keys('runlock/.state/dq/')).toEqual([]);
    const more = await group.exec('web01', ...long('--publish', 'pq', 38), '--', 'true');
    expect(more.status).toBe(64);
  });

  test('52 states of one group are published', async () => {
    const words = Array.from({ length: 52 }, (_, i) => ['--publish', `pf/${i}=1`]).flat();
    expect((await groupOf(agent, 'pub/many').exec('web01', ...words, '--', 'true')).status).toBe(0);
    expect(await agent.kv.keys('runlock/.state/pf/')).toHaveLength(52);
  });
});

test('the file has lists of them, and a run in two groups sets the states of both', async () => {
  const file = join(stage().folder, 'config.toml');
  writeFileSync(
    file,
    [
      '[groups."pub/file"]',
      'publish = ["fa/a=1,2", "fa/b=2"]',
      'during = "fa/c=1"',
      '[groups."pub/more"]',
      'publish = ["fa/d=1"]',
      '',
    ].join('\n'),
  );
  const group = groupOf(agent, 'pub/file', { args: ['-g', 'pub/more', '--config', file] });
  const holder = await group.hold('web01');
  expect(await stored('fa/c')).toMatchObject({ value: '1' });
  await holder.end();
  expect(await stored('fa/a')).toMatchObject({ value: '1,2' });
  expect(await stored('fa/b')).toMatchObject({ value: '2' });
  expect(await stored('fa/d')).toMatchObject({ value: '1' });
  writeFileSync(file, '[groups."pub/file"]\npublish = ["fa/a"]\n');
  const { status, stderr } = await group.exec('web01', '--', 'true');
  expect(status).toBe(78);
  expect(stderr).toContain(`${file}:2: publish = ["fa/a"] in [groups."pub/file"]: `);
  expect(stderr).toContain('has no value; write PATH=VALUE');
});
