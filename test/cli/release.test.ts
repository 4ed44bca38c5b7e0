// The operator's way, and the owner's, to clear a claim.
import { randomUUID } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { hostname, userInfo } from 'node:os';
import { describe, expect, test } from 'vitest';
import { useAgent } from '../support/use-agent.ts';
import { groupOf } from '../support/group.ts';
import { eventually, isAlive, untilGone } from '../support/processes.ts';
import { stage } from '../support/stage.ts';
import { runlock, startRunlock } from '../support/runlock.ts';
import { startInTerminal } from '../support/terminal.ts';

const agent = useAgent();

const on = (group: string) => groupOf(agent, group);

const release = (...args: string[]) => runlock(agent, ['release', ...args]);

const ownerKey = (group: string, slot = 0) => `runlock/${group}/.slot/${slot}/owner`;
const sessions = async () => (await agent.http('GET', '/v1/session/list')).json();

/** A run that ignores TERM, with a child in a session of its own; it ends when `<folder>/end` is there. */
async function holder(group: string, node = 'web01') {
  const { folder, pid } = stage();
  const loop = `while ! [ -e ${folder}/end ]; do sleep 0.05; done`;
  const script = `trap '' TERM; setsid sh -c 'echo $$ >${folder}/child.pid; ${loop}' & echo $$ >${folder}/command.pid; ${loop}`;
  const args = ['exec', '-g', group, '--node', node, '--kill-after', '500ms', '--', 'sh', '-c', script];
  const run = startRunlock(agent, args);
  const tree = await Promise.all([pid('command'), pid('child')]);
  return { run, tree, tell: () => writeFileSync(`${folder}/end`, '') };
}

/** A run whose runlock was killed and whose session is gone: its claim still says running. */
async function vanished(group: string) {
  const { run, tree } = await holder(group);
  run.signal('SIGKILL');
  await run.ended;
  await Promise.all(tree.map((pid) => untilGone(pid)));
  const lock = await agent.kv.get(`runlock/${group}/.slot/0/lock`);
  await agent.http('PUT', `/v1/session/destroy/${lock?.Session ?? ''}`);
  expect(await on(group).claim()).toMatchObject({ state: 'running', node: 'web01' });
  expect(await on(group).keys('.slot/')).toEqual(['.slot/0/owner']);
}

/** A claim as runlock stores it. */
const byHand = (node: string, state: string) =>
  JSON.stringify({
    ...{ v: 1, node, state, run: randomUUID(), since: new Date().toISOString(), command: 'chef-client' },
    ...{ hold: 'forever', exitCode: 1, pid: 1, startTime: '1', bootId: 'another' },
  });

describe('a failed claim', () => {
  test('of this node: cleared without naming it, and others go on at once', async () => {
    await runlock(agent, ['exec', '-g', 'own', '--', 'false']);
    expect(await release('own')).toEqual({
      status: 0,
      stdout: `cleared the failed claim of ${agent.name} on slot 0 of own\n`,
      stderr: '',
    });
    expect(await on('own').keys('.slot/')).toEqual([]);
    expect(await sessions()).toEqual([]);
    expect((await on('own').exec('web02', '-w', '0', '--', 'true')).status).toBe(0);
  });

  test('of another node: only when it is named', async () => {
    await on('other').exec('web01', '--', 'false');
    expect((await release('other')).stdout).toBe(`nothing to release: ${agent.name} has no claim in other\n`);
    expect((await release('other', '--owner', 'web02')).stdout).toMatch(/^nothing to release: web02 /);
    expect(await on('other').claim()).toMatchObject({ node: 'web01', state: 'failed' });
    const done = await release('other', '--owner', 'web01');
    expect(done).toMatchObject({
      status: 0,
      stdout: 'cleared the failed claim of web01 on slot 0 of other\n',
    });
    expect(await on('other').keys('.slot/')).toEqual([]);
  });

  test('the group is given as for exec, too', async () => {
    await on('named/web').exec('web01', '--', 'false');
    expect((await release('-g', 'named/web', '--node', 'web01')).stdout).toMatch(
      /^cleared .* of named\/web\n$/,
    );
    await runlock(agent, ['exec', '--', 'false']);
    expect((await release()).stdout).toBe(`cleared the failed claim of ${agent.name} on slot 0 of default\n`);
  });

  test('of a group above or below stays', async () => {
    await on('tree').exec('web01', '--', 'false');
    await on('tree/web').exec('web01', '--', 'false');
    await release('tree', '--owner', 'web01');
    expect(await on('tree/web').claim()).toMatchObject({ state: 'failed' });
  });
});

test('nothing to release is said, and is no error', async () => {
  const before = await agent.kv.tree();
  const nothing = await release('never', '--owner', 'web01');
  expect(nothing).toEqual({
    status: 0,
    stdout: 'nothing to release: web01 has no claim in never\n',
    stderr: '',
  });
  expect(await agent.kv.tree()).toEqual(before);
});

describe('a run under way', () => {
  test('is refused without --force, and goes on', async () => {
    const { run, tree, tell } = await holder('alive');
    const before = await agent.kv.tree('runlock/alive/');
    const refused = await release('alive', '--owner', 'web01');
    expect(refused).toMatchObject({ status: 75, stdout: '' });
    expect(refused.stderr).toMatch(
      /^runlock: web01 is running sh in slot 0 of alive .*'runlock release alive --owner web01 --force'\n$/,
    );
    expect(await agent.kv.tree('runlock/alive/')).toEqual(before);
    expect(tree.every(isAlive)).toBe(true);
    tell();
    expect((await run.ended).status).toBe(0);
  });

  test('is evicted with --force: killed with its tree before the answer comes, and others go on', async () => {
    const { run, tree } = await holder('force');
    const done = await release('force', '--owner', 'web01', '--force');
    expect(done).toEqual({
      status: 0,
      stdout: 'evicted web01 from slot 0 of force; its command has ended\n',
      stderr: '',
    });
    expect(tree.filter(isAlive)).toEqual([]);
    const { status, stderr } = await run.ended;
    expect(status).toBe(79);
    expect(stderr).toContain(`${userInfo().username}@${hostname()} evicted the run; killed the command`);
    expect(await agent.kv.keys('runlock/force/')).toEqual(
      ['.last', '.runs/web01', '.tail'].map((key) => `runlock/force/${key}`),
    );
    const record = JSON.parse((await agent.kv.get('runlock/force/.runs/web01'))?.Value ?? '{}') as object;
    expect(record).toMatchObject({ outcome: 'evicted' });
    expect((await on('force').exec('web02', '-w', '0', '--', 'true')).status).toBe(0);
  });

  test('that was told to stop and is evicted before it ends: 79, eviction outweighs the signal', async () => {
    const { folder, lines, pid } = stage();
    const loop = `while ! [ -e ${folder}/end ]; do sleep 0.05; done`;
    const script = `trap 'echo >>${folder}/told' TERM; echo $$ >${folder}/command.pid; ${loop}`;
    const patient = ['exec', '--verbose', '-g', 'outweighs', '--node', 'web01', '--kill-after', '1m'];
    const run = startRunlock(agent, [...patient, '--', 'sh', '-c', script]);
    await pid('command');
    run.signal('SIGTERM');
    await eventually(() => expect(lines('told')).not.toEqual([]));
    const releasing = release('outweighs', '--owner', 'web01', '--force');
    await eventually(() => expect(run.stderr()).toMatch(/evicted the run .*; killing the command/));
    writeFileSync(`${folder}/end`, '');
    expect((await run.ended).status).toBe(79);
    expect((await releasing).status).toBe(0);
    const record = (await agent.kv.get('runlock/outweighs/.runs/web01'))?.Value ?? '{}';
    expect(JSON.parse(record)).toMatchObject({ outcome: 'evicted' });
  });

  test('that is evicted overlaps with nobody: the next starts when its tree is gone', async () => {
    const { folder, lines } = stage();
    const { run, tree } = await holder('overlap');
    const look = tree.map(
      (pid) => `grep -qs '^State:.[^ZX]' /proc/${pid}/status && echo ${pid} >>${folder}/alive`,
    );
    const script = `${look.join('; ')}; echo >>${folder}/started`;
    const args = ['exec', '-g', 'overlap', '--node', 'web02', '--', 'sh', '-c', script];
    const next = startRunlock(agent, args);
    await on('overlap').waiting();
    expect((await release('overlap', '--owner', 'web01', '--force')).status).toBe(0);
    expect((await next.ended).status).toBe(0);
    expect(lines('started')).toHaveLength(1);
    expect(lines('alive')).toEqual([]);
    expect((await run.ended).status).toBe(79);
  });

  test('evicted twice at the same time: both operators hear of the end', async () => {
    const { run } = await holder('both');
    const args = ['both', '--owner', 'web01', '--force'];
    const answers = await Promise.all([release(...args), release(...args)]);
    expect(answers.map(({ status }) => status)).toEqual([0, 0]);
    expect((await run.ended).status).toBe(79);
    expect(await on('both').keys('.slot/')).toEqual([]);
  });
});

describe('a running claim whose session is gone', () => {
  test('is refused without --force: the command may still run there', async () => {
    await vanished('gone');
    const before = await agent.kv.tree('runlock/gone/');
    const refused = await release('gone', '--owner', 'web01');
    expect(refused).toMatchObject({ status: 75, stdout: '' });
    expect(refused.stderr).toMatch(
      /^runlock: .*lost its session; the command may still be running there.*--force'\n$/,
    );
    expect(await agent.kv.tree('runlock/gone/')).toEqual(before);
  });

  test('is cleared with --force, which says that the command may still run there', async () => {
    await vanished('gone-force');
    const done = await release('gone-force', '--owner', 'web01', '--force');
    expect(done.status).toBe(0);
    expect(done.stdout).toMatch(
      /^cleared the running claim of web01 on slot 0 of gone-force; .*may still be running: check web01/,
    );
    expect(await on('gone-force').keys('.slot/')).toEqual([]);
  });

  test('is cleared no more easily once somebody has marked it abandoned', async () => {
    await agent.kv.put(ownerKey('abandoned'), byHand('web01', 'abandoned'));
    const before = await agent.kv.tree('runlock/abandoned/');
    // Without --force it went, and the next node began beside a command that still ran.
    const refused = await release('abandoned', '--owner', 'web01');
    expect(refused).toMatchObject({ status: 75, stdout: '' });
    expect(refused.stderr).toMatch(
      /^runlock: web01 vanished while running chef-client in slot 0 of abandoned \(abandoned \d+s ago\); the command may still be running there; check web01 \(run \S+, its runlock was pid 1\), then use 'runlock release abandoned --owner web01 --force'\n$/,
    );
    expect(await agent.kv.tree('runlock/abandoned/')).toEqual(before);
    const done = await release('abandoned', '--owner', 'web01', '--force');
    expect(done.stdout).toMatch(/^cleared the abandoned claim of web01 .*may still be running: check web01/);
  });

  test("of this node is refused too: what counts is the node's own word that nothing of it runs", async () => {
    await agent.kv.put(ownerKey('own-abandoned'), byHand(agent.name, 'abandoned'));
    expect(await release('own-abandoned')).toMatchObject({ status: 75, stdout: '' });
    expect(await on('own-abandoned').claim()).toMatchObject({ state: 'abandoned' });
  });
});

describe('what another node holds by acquire', () => {
  test('is refused without --force: what it does there may still go on', async () => {
    await runlock(agent, ['acquire', 'holds', '--node', 'web01']);
    const before = await agent.kv.tree('runlock/holds/');
    const refused = await release('holds', '--owner', 'web01');
    expect(refused).toMatchObject({ status: 75, stdout: '' });
    expect(refused.stderr).toMatch(
      /^runlock: web01 acquired slot 0 of holds with 'runlock acquire' \d+s ago and has not released it; its work may still be going on; check web01, or ask the people who work on it, then use 'runlock release holds --owner web01 --force'\n$/,
    );
    expect(await agent.kv.tree('runlock/holds/')).toEqual(before);
  });

  test('its own release needs no --force', async () => {
    await runlock(agent, ['acquire', 'own-half', '--node', 'web01']);
    expect(await release('own-half', '--node', 'web01')).toMatchObject({ status: 0, stderr: '' });
  });
});

describe('on a terminal', () => {
  const asked = async (group: string, state: string, ...more: string[]) => {
    await agent.kv.put(ownerKey(group), byHand('web01', state));
    return startInTerminal(agent, ['release', group, '--owner', 'web01', ...more]);
  };

  test.each([
    [
      'abandoned',
      /the command may still be running there\. check web01 \(run \S+, its runlock was pid 1\)\./,
    ],
    ['running', /lost its session; the command may still be running there\. check web01 /],
    ['held', /its work may still be going on\. check web01, or ask the people who work on it\./],
  ])('an %s claim: it asks first, and a typed yes clears it', async (state, says) => {
    const group = `yes/${state}`;
    const screen = await asked(group, state);
    await screen.shows(/Type yes to continue: $/);
    expect(screen.screen()).toMatch(says);
    expect(await on(group).claim()).toMatchObject({ state });
    screen.type('yes\n');
    expect(await screen.ended).toBe(0);
    expect(await on(group).claim()).toBeUndefined();
  });

  test.each([
    ['Enter alone', '\n'],
    ['y', 'y\n'],
    ['YES in capitals', 'YES\n'],
    ['yes with spaces around it', ' yes \n'],
    ['the end of what is typed', '\x04'],
  ])('%s is no', async (what, typed) => {
    const group = `no/${what.length}`;
    const screen = await asked(group, 'abandoned');
    await screen.shows(/Type yes/);
    screen.type(typed);
    expect(await screen.ended).toBe(75);
    expect(screen.screen()).toMatch(/nothing was cleared: .*--force'/);
    expect(await on(group).claim()).toMatchObject({ state: 'abandoned' });
  });

  test('Ctrl-C ends it, and nothing is cleared', async () => {
    const screen = await asked('break', 'held');
    await screen.shows(/Type yes/);
    screen.type('\x03');
    expect(await screen.ended).toBe(130);
    expect(await on('break').claim()).toMatchObject({ state: 'held' });
  });

  test('a yes counts for the run that was asked about, not for what came in its place', async () => {
    const screen = await asked('changes', 'running');
    await screen.shows(/Type yes/);
    const { run } = (await on('changes').claim()) ?? {};
    await agent.kv.put(ownerKey('changes'), byHand('web01', 'abandoned'));
    screen.type('yes\n');
    await eventually(() => expect(screen.screen().match(/Type yes/g)).toHaveLength(2));
    expect(screen.screen()).toContain(String(run));
    screen.type('no\n');
    expect(await screen.ended).toBe(75);
    expect(await on('changes').claim()).toMatchObject({ state: 'abandoned' });
  });

  test.each<[string, string, string, object]>([
    ['a vanished run, whose node has failed again since', 'running', 'failed', { run: 'another' }],
    ['what is held, and was asked for again', 'held', 'held', { waitedMs: 1 }],
  ])('a yes about %s clears nothing of that', async (what, before, after, changes) => {
    const group = `shown/${what.length}`;
    const screen = await asked(group, before);
    await screen.shows(/Type yes/);
    // What is asked for again is the same run's; a node's next run has another id.
    const now = after === before ? await on(group).claim() : (JSON.parse(byHand('web01', after)) as object);
    await agent.kv.put(ownerKey(group), JSON.stringify({ ...now, ...changes }));
    screen.type('yes\n');
    if (after === 'held') {
      await eventually(() => expect(screen.screen().match(/Type yes/g)).toHaveLength(2));
      screen.type('no\n');
    }
    expect(await screen.ended).toBe(75);
    expect(await on(group).claim()).toMatchObject({ state: after, ...changes });
    expect(screen.screen()).toMatch(/nothing was cleared/);
  });

  test('a failed claim, and --force, need no answer', async () => {
    expect(await (await asked('plain', 'failed')).ended).toBe(0);
    expect(await (await asked('forced', 'abandoned', '--force')).ended).toBe(0);
  });

  test('where stdin is none, nobody is asked', async () => {
    await agent.kv.put(ownerKey('piped'), byHand('web01', 'abandoned'));
    const options = { after: '</dev/null' };
    const screen = startInTerminal(agent, ['release', 'piped', '--owner', 'web01'], options);
    expect(await screen.ended).toBe(75);
    expect(screen.screen()).not.toContain('Type yes');
  });
});

test('--force on a run whose session ends before its release clears nothing, and names its node', async () => {
  const { run } = await holder('silent');
  const session = (await agent.kv.get('runlock/silent/.slot/0/lock'))?.Session ?? '';
  run.signal('SIGSTOP');
  const evicting = startRunlock(agent, ['release', 'silent', '--owner', 'web01', '--force', '-v']);
  await evicting.says(/waiting for it to end/);
  await agent.http('PUT', `/v1/session/destroy/${session}`);
  const { status, stdout, stderr } = await evicting.ended;
  expect({ status, stdout }).toEqual({ status: 75, stdout: '' });
  expect(stderr).toMatch(
    /the command may still be running there; check web01, then run 'runlock release silent --owner web01 --force' again\n$/,
  );
  expect(await agent.kv.keys('runlock/silent/.slot/')).toEqual([ownerKey('silent')]);
  run.signal('SIGCONT');
  expect((await run.ended).status).toBe(79);
  expect(await on('silent').keys('.slot/')).toEqual([]);
});

describe('a slot whose lock another session holds, which is no run’s', () => {
  /** Takes the lock key as a hand would, from whoever has it. */
  async function takeLock(group: string): Promise<string> {
    const Key = lockKey(group);
    const { ID: Session } = (await (
      await agent.http('PUT', '/v1/session/create', { Behavior: 'delete', LockDelay: '0s' })
    ).json()) as { ID: string };
    const has = (await agent.kv.get(Key)) !== undefined;
    const steps = [
      ...(has ? [{ KV: { Verb: 'delete', Key } }] : []),
      { KV: { Verb: 'lock', Key, Value: Buffer.from('mine').toString('base64'), Session } },
    ];
    expect((await agent.http('PUT', '/v1/txn', steps)).status).toBe(200);
    return Session;
  }
  const lockKey = (group: string) => `runlock/${group}/.slot/0/lock`;
  const saysWho = (group: string, session: string, force = ' --force') =>
    `runlock: nothing was cleared: session ${session}, which does not belong to the run of web01, holds ${lockKey(group)}, so slot 0 of ${group} can't be released; find out who created the session ('consul kv get -detailed ${lockKey(group)}'), delete the key with 'consul kv delete ${lockKey(group)}', then run 'runlock release ${group} --owner web01${force}' again\n`;

  test.each(['failed', 'running', 'held', 'abandoned', 'evicted'])(
    'that keeps a %s claim: refused, also with --force, and told what lets go of it',
    async (state) => {
      const group = `foreign-${state}`;
      await agent.kv.put(ownerKey(group), byHand('web01', state));
      const session = await takeLock(group);
      const before = await agent.kv.tree(`runlock/${group}/`);
      const forced = await release(group, '--owner', 'web01', '--force');
      expect(forced).toEqual({ status: 75, stdout: '', stderr: saysWho(group, session) });
      const asked = await release(group, '--owner', 'web01');
      expect(asked).toEqual({ status: 75, stdout: '', stderr: saysWho(group, session, '') });
      expect(await agent.kv.tree(`runlock/${group}/`)).toEqual(before);
      await agent.kv.delete(lockKey(group));
      expect((await release(group, '--owner', 'web01', '--force')).status).toBe(0);
      expect(await on(group).keys('.slot/')).toEqual([]);
    },
  );

  test('that is taken while a run is evicted: it waits no longer', async () => {
    const { run } = await holder('foreign-late');
    run.signal('SIGSTOP');
    const evicting = startRunlock(agent, ['release', 'foreign-late', '--owner', 'web01', '--force', '-v']);
    await evicting.says(/waiting for it to end/);
    const session = await takeLock('foreign-late');
    const { status, stderr } = await evicting.ended;
    expect(status).toBe(75);
    expect(stderr).toContain(
      `told the run of web01 to end, but it may not have ended: session ${session}, which does not belong to the run of web01, holds`,
    );
    await agent.kv.delete(lockKey('foreign-late'));
    run.signal('SIGCONT');
    expect((await run.ended).status).toBe(79);
    expect(await on('foreign-late').keys('.slot/')).toEqual([]);
  });
});

test('--slot clears that slot’s claim alone', async () => {
  for (const slot of [0, 1, 10]) await agent.kv.put(ownerKey('slots', slot), byHand('web01', 'failed'));
  expect((await release('slots', '--owner', 'web01', '--slot', '1')).stdout).toBe(
    'cleared the failed claim of web01 on slot 1 of slots\n',
  );
  expect(await agent.kv.keys('runlock/slots/')).toEqual([ownerKey('slots', 0), ownerKey('slots', 10)]);
  expect((await release('slots', '--owner', 'web01', '--slot', '7')).stdout).toMatch(/^nothing to release/);
  const rest = await release('slots', '--owner', 'web01');
  expect(rest.stdout.trim().split('\n')).toHaveLength(2);
  expect(await on('slots').keys()).toEqual([]);
});

describe('--json', () => {
  test('what was done', async () => {
    await on('json').exec('web01', '--', 'false');
    const done = await release('json', '--owner', 'web01', '--json');
    expect(done).toMatchObject({ status: 0, stderr: '' });
    expect(JSON.parse(done.stdout)).toEqual({
      v: 1,
      kind: 'released',
      node: 'web01',
      group: 'json',
      claims: [{ slot: 0, node: 'web01', state: 'failed', how: 'cleared' }],
    });
  });

  test('nothing', async () => {
    const done = await release('json-none', '--owner', 'web01', '--json');
    expect(JSON.parse(done.stdout)).toEqual({ v: 1, kind: 'nothing', node: 'web01', group: 'json-none' });
  });

  test('an eviction, and a claim without a session', async () => {
    const { run } = await holder('json-force');
    const evicted = await release('json-force', '--owner', 'web01', '--force', '--json');
    expect(JSON.parse(evicted.stdout)).toMatchObject({ claims: [{ state: 'running', how: 'evicted' }] });
    expect((await run.ended).status).toBe(79);
    await agent.kv.put(ownerKey('json-gone'), byHand('web01', 'running'));
    const gone = await release('json-gone', '--owner', 'web01', '--force', '--json');
    expect(JSON.parse(gone.stdout)).toMatchObject({ claims: [{ state: 'running', how: 'unwatched' }] });
  });
});

test('a claim that cannot be read is never cleared by guessing', async () => {
  await agent.kv.put(ownerKey('newer'), JSON.stringify({ v: 2, holder: 'web01' }));
  const refused = await release('newer', '--owner', 'web01', '--force');
  expect(refused).toMatchObject({ status: 78, stdout: '' });
  expect(refused.stderr).toMatch(/^runlock: [^\n]*written by a newer runlock[^\n]*\n$/);
  expect(await agent.kv.keys('runlock/newer/')).toEqual([ownerKey('newer')]);
});
