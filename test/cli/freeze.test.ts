// An operator stops a group: no new run starts in it or below it, those under way finish, those that wait wait on.
import { hostname, userInfo } from 'node:os';
import { describe, expect, test } from 'vitest';
import { useAgent } from '../support/use-agent.ts';
import { groupOf } from '../support/group.ts';
import { eventually } from '../support/processes.ts';
import type { Result } from '../support/program.ts';
import { runlock, startRunlock } from '../support/runlock.ts';
import { stage } from '../support/stage.ts';
import { startProxy } from '../support/proxy.ts';
import { writes } from '../support/proxy-steps.ts';
import { startInTerminal } from '../support/terminal.ts';

const agent = useAgent();

const on = (group: string) => groupOf(agent, group);

const me = `${userInfo().username}@${hostname()}`;

const freeze = (...args: string[]) => runlock(agent, ['freeze', ...args]);
const thaw = (...args: string[]) => runlock(agent, ['thaw', ...args]);

const keyOf = (path: string) => `runlock/${path}${path === '' ? '' : '/'}.freeze`;
const stored = async (path: string) =>
  JSON.parse((await agent.kv.get(keyOf(path)))?.Value ?? 'null') as Record<string, string> | null;

/** A freeze as runlock stores it. */
const byAnna = (fields: object = {}) =>
  JSON.stringify({ v: 1, by: 'anna@ops', reason: 'release day', since: new Date().toISOString(), ...fields });

/** Who waits, in the order of the tickets. */
const queue = async (group: string) => (await on(group).tickets()).map(({ node }) => node);

const waiting = (group: string, nodes: readonly string[]) =>
  eventually(async () => expect(await queue(group)).toEqual(nodes));

/** One line on stderr, nothing on stdout. */
function expectComplaint({ status, stdout, stderr }: Result, code: number, pattern: RegExp): void {
  expect({ status, stdout }).toEqual({ status: code, stdout: '' });
  expect(stderr).toMatch(/^runlock: [^\n]+\n$/);
  expect(stderr).toMatch(pattern);
}

/** The freeze of everything would stop the other tests: it gets a prefix of its own. */
const everything = ['--prefix', 'ice'];

describe.each([
  ['the group', 'own/web', 'own/web', [], 'own/web'],
  ['one above it', 'above/a/web', 'above', [], 'above (which includes above/a/web)'],
  ['the root', 'web', '/', everything, 'every group'],
])('a freeze of %s', (_name, group, at, prefix, what) => {
  const exec = (...args: string[]) => on(group).start('web01', ...prefix, ...args);

  test('lets a run that does not wait know who, why and since when, and it exits 75', async () => {
    expect((await freeze(at, '--reason', 'release day', ...prefix)).status).toBe(0);
    const busy = await exec('-w', '0', '--', 'echo', 'ran').ended;
    expectComplaint(busy, 75, /was frozen \d+s ago by /);
    const said = busy.stderr.replace(/\d+s ago/, 'Ns ago');
    expect(said).toBe(
      `runlock: busy: ${what} was frozen Ns ago by ${me} (release day); see 'runlock status ${[group, ...prefix].join(' ')}'\n`,
    );
  });

  test('keeps a waiting run waiting, which says why; a thaw lets it go', async () => {
    const run = exec('-v', '--', 'echo', 'ran');
    await run.says(/is frozen by/);
    expect(run.stderr()).toContain(
      `runlock: ${what} is frozen by ${me} (release day); waiting until thawed\n`,
    );
    expect(run.stdout()).toBe('');
    expect((await thaw(at, ...prefix)).status).toBe(0);
    const { status, stdout } = await run.ended;
    expect({ status, stdout }).toEqual({ status: 0, stdout: 'ran\n' });
  });
});

test('a freeze of a group stops no group beside or above it', async () => {
  await freeze('side/web', '--reason', 'release day');
  for (const group of ['side', 'side/web2', 'side/db'])
    expect((await on(group).exec('web01', '-w', '0', '--', 'true')).status).toBe(0);
});

test('a run under way finishes; three that wait start when the group is thawed, in their order', async () => {
  const here = stage();
  const { end } = await on('three').hold('web00');
  const nodes = ['web03', 'web01', 'web02'];
  const runs = [];
  for (const [i, node] of nodes.entries()) {
    runs.push(on('three').start(node, '-v', '--', 'sh', '-c', `echo ${node} >>${here.folder}/order`));
    await waiting('three', nodes.slice(0, i + 1));
  }
  expect((await freeze('three', '--reason', 'release day')).status).toBe(0);
  await end();
  await runs[0]?.says(/three is frozen by/);
  // Nobody passes those that wait.
  expectComplaint(
    await on('three').exec('web04', '-w', '0', '--', 'true'),
    75,
    /busy: three was frozen \d+s ago by/,
  );
  expect(await queue('three')).toEqual(nodes);
  expect(here.lines('order')).toEqual([]);
  expect((await thaw('three')).status).toBe(0);
  for (const run of runs) expect((await run.ended).status).toBe(0);
  expect(here.lines('order')).toEqual(nodes);
});

test('whoever gives up behind others says that the group is frozen', async () => {
  await freeze('behind', '--reason', 'release day', '--for', '1h');
  const first = on('behind').start('web01', '-v', '--', 'true');
  await first.says(/is frozen by/);
  const second = await on('behind').exec('web02', '-w', '500ms', '--', 'true');
  expectComplaint(second, 75, /busy: behind was frozen \d+s ago by .* until 2\S+Z \(in 59m\d*s?\); see/);
  await thaw('behind');
  expect((await first.ended).status).toBe(0);
});

test('a freeze ends by itself: a waiting run goes on after that, not before, and the key goes', async () => {
  const { folder, lines } = stage();
  expect((await freeze('ends', '--reason', 'a moment', '--for', '5s')).status).toBe(0);
  const until = (await stored('ends'))?.['until'] ?? '';
  const running = on('ends').start('web01', '-v', '--', 'sh', '-c', `date +%s%3N >>${folder}/started`);
  await running.says(new RegExp(`waiting until ${until.replace(/\.\d+Z$/, 'Z')}`));
  expect((await running.ended).status).toBe(0);
  const [started] = lines('started').map(Number);
  expect(started).toBeGreaterThan(Date.parse(until));
  expect(await stored('ends')).toBeNull();
});

test('a freeze that is changed while a run waits is the one that counts', async () => {
  await freeze('changed', '--reason', 'release day');
  const running = on('changed').start('web01', '-v', '--', 'true');
  await running.says(/\(release day\); waiting until thawed/);
  await freeze('changed', '--reason', 'nearly done', '--for', '3s');
  await running.says(/\(nearly done\); waiting until 2/);
  expect((await running.ended).status).toBe(0);
});

describe('on a terminal', () => {
  const soon = () => new Date(Date.now() + 7_200_000).toISOString();
  const terminal = (group: string, node: string) =>
    startInTerminal(agent, on(group).words(node, '--', 'echo', 'ran'));

  test('who waits sees who froze the group, until when and why; the line goes with the freeze', async () => {
    const record = byAnna({ by: 'ann', reason: 'move', until: soon() });
    await agent.kv.put(keyOf('tty/web'), record);
    const first = terminal('tty/web', 'web01');
    await first.shows(/waiting \d+s for tty\/web · place 1 · frozen by ann for another 1h59m: move\r/);
    const second = terminal('tty/web', 'web02');
    await second.shows(/waiting \d+s for tty\/web · place 2 · frozen by ann for another 1h59m: move\r/);
    await thaw('tty/web');
    for (const screen of [first, second]) {
      expect(await screen.ended).toBe(0);
      const last = screen.screen().slice(screen.screen().lastIndexOf('frozen by ann'));
      expect(last).toMatch(/\r\n(?:runlock: [^\r]*\r\n)*ran\r\n/);
    }
  });

  test('one that waits already hears of a freeze above, and of its end', async () => {
    const { end } = await on('up/web').hold('web00');
    const screen = terminal('up/web', 'web01');
    await screen.shows(/waiting \d+s for up\/web · place 1 · web00 running sh for \d+s\r/);
    await freeze('up', '--reason', 'move');
    await screen.shows(/place 1 · up frozen by \S+: move/);
    const frozen = screen.screen().length;
    await thaw('up');
    await eventually(
      () => expect(screen.screen().slice(frozen)).toMatch(/place 1 · web00 running sh for \d+s\r/),
      20_000,
    );
    await end();
    expect(await screen.ended).toBe(0);
  });
});

describe('a freeze that comes between the look at a free slot and the grant', () => {
  test.each([
    ['of a run that waited', 'between/waits', 'set', '/.last'],
    ["of a node's return to its failed claim", 'between/returns', 'check-index', '/owner'],
  ] as const)('%s: nothing starts until it is thawed', async (_, group, verb, key) => {
    const { folder, lines } = stage();
    if (verb === 'check-index') expect((await on(group).exec('web01', '--', 'false')).status).toBe(1);
    await using proxy = await startProxy(agent);
    const asks = writes(verb, key);
    const frozen = proxy.seen(asks).then(() => freeze('between', '--reason', 'release day'));
    proxy.rule({ match: asks, times: 1, do: { until: frozen } });
    const script = `echo ran >>${folder}/ran`;
    const args = on(group).words('web01', '-v', '--', 'sh', '-c', script);
    const late = startRunlock(agent, args, { env: proxy.env });
    expect(await frozen).toMatchObject({ status: 0 });
    await late.says(/between \(which includes between\/\w+\) is frozen by/);
    expect(lines('ran')).toEqual([]);
    expect(await on(group).keys('.slot/0/lock')).toEqual([]);
    expect((await thaw('between')).status).toBe(0);
    expect((await late.ended).status).toBe(0);
    expect(lines('ran')).toEqual(['ran']);
  });
});
