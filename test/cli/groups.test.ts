// `exec` in several groups: a slot in each, taken in one order, given back together.
import { once } from 'node:events';
import { readFileSync, writeFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { startAgent } from '../support/consul.ts';
import { useAgent } from '../support/use-agent.ts';
import { groupOf } from '../support/group.ts';
import { eventually, isAlive } from '../support/processes.ts';
import { startProxy } from '../support/proxy.ts';
import type { ProxyRequest } from '../support/proxy.ts';
import { runlock, startRunlock } from '../support/runlock.ts';
import { stage } from '../support/stage.ts';
import { startInTerminal } from '../support/terminal.ts';

const agent = useAgent();

const on = (group: string) => groupOf(agent, group);

let count = 0;
/** Two groups of a test's own, in the order in which they are taken. */
function setup() {
  const { folder, lines } = stage();
  const [first, second] = [`several/${count}/prod/web`, `several/${count++}/rack/r4`];
  const both = groupOf(agent, second, { args: ['-g', first, '--session-ttl', '10s'] });
  /** Once, and in one of them alone. */
  const only = (group: string) => groupOf(agent, group, { args: ['-w', '0'] });
  return {
    ...{ folder, lines, first, second, only, args: both.words },
    ...{ exec: both.exec, start: both.start, hold: both.hold },
    claims: () => Promise.all([first, second].map((group) => on(group).claim())),
    /** Holds the first and waits for the second, which another node has. */
    waiting: async (node: string, ...more: string[]) => {
      const other = await only(second).hold('web09');
      const run = both.start(node, ...more, '-v', '--', 'touch', `${folder}/started`);
      await both.waiting();
      return { run, other };
    },
    keys: async () =>
      (await Promise.all([first, second].map((group) => agent.kv.keys(on(group).key()))))
        .flat()
        .filter((key) => !/\.(?:tail|last|runs\/[^/]+)$/.test(key)),
    sessions: async () => (await Promise.all([first, second].map((group) => on(group).sessions()))).flat(),
    started: () => lines('started.pid'),
  };
}

/** Signals that the process has not been told of yet, as bits. */
const pendingSignals = (pid: number) =>
  Number(`0x${/^ShdPnd:\s*(\w+)$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1] ?? '0'}`);

const destroy = (session: string | undefined) =>
  agent.http('PUT', `/v1/session/destroy/${session ?? 'none'}`);

describe('a run in several groups', () => {
  test('takes a slot in each, tells its command of all of them in one order, and gives all back', async () => {
    const { first, second, exec, args, only, hold, keys, sessions } = setup();
    const run = await hold('web01');
    for (const group of [first, second])
      expect(await only(group).exec('web02', '--', 'true')).toMatchObject({ status: 75 });
    const { stdout: seen } = await runlock(agent, ['status', first]);
    expect(seen).toMatch(new RegExp(`slot 0: web01 has been running sh for \\ds, also in ${second}\\n`));
    run.tell();
    expect(await run.ended).toMatchObject({ status: 0, stderr: '' });
    expect(await keys()).toEqual([]);
    expect(await sessions()).toEqual([]);
    const show = 'echo "$RUNLOCK_RUN_GROUP $RUNLOCK_RUN_SLOT $RUNLOCK_FENCING_TOKEN"';
    const one = await exec('web01', '-n', '2', '--', 'sh', '-c', show);
    const other = await runlock(agent, [...args('web01', '-g', first), '--', 'sh', '-c', show]);
    for (const { stdout } of [one, other]) {
      const [groups = '', slots, tokens = ''] = stdout.trim().split(' ');
      expect(groups).toBe(`${first},${second}`);
      expect(slots).toBe('0,0');
      expect(tokens).toMatch(/^\d+,\d+$/);
    }
    for (const group of [first, second])
      expect(await on(group).lastRun('web01')).toMatchObject({ outcome: 'succeeded', command: 'sh' });
  });

  test('and another with the same groups in another order both end: neither waits for the other', async () => {
    const { first, second } = setup();
    const groups = [
      ['-g', first, '-g', second],
      ['-g', second, '-g', first],
    ];
    const runs = Array.from({ length: 8 }, (_, i) =>
      startRunlock(agent, [
        ...['exec', ...(groups[i % 2] ?? []), '--node', `web0${i}`, '-w', '60s'],
        ...['--', 'sleep', '0.1'],
      ]),
    );
    const ended = await Promise.all(runs.map((run) => run.ended));
    expect(ended.map(({ status, stderr }) => ({ status, stderr }))).toEqual(
      ended.map(() => ({ status: 0, stderr: '' })),
    );
  });

  test('that fails keeps its claim in each, with its hold; the node’s next run takes all back', async () => {
    const { folder, first, second, exec, claims, keys } = setup();
    const config = `${folder}/config.toml`;
    writeFileSync(config, `hold = "2h"\n[groups."${second}"]\nhold = "forever"\nslots = 3\n`);
    const failed = await exec('web01', '--config', config, '--', 'sh', '-c', 'exit 3');
    expect(failed.status).toBe(3);
    expect(failed.stderr).toContain(`web01 still holds slot 0 of ${first} until 2`);
    expect(failed.stderr).toContain(`web01 still holds slot 0 of ${second} until a run succeeds`);
    expect(await claims()).toMatchObject([
      { node: 'web01', state: 'failed', exitCode: 3, hold: 7_200_000, groups: [second, first] },
      { node: 'web01', state: 'failed', exitCode: 3, hold: 'forever' },
    ]);
    expect(await exec('web02', '-w', '0', '--', 'true')).toMatchObject({ status: 75 });
    const again = await exec('web01', '-w', '0', '-v', '--dry-run', '--', 'true');
    expect(again.stderr).toContain(`in slot 0 of ${first}, replacing its failed claim: true`);
    expect(again.stderr).not.toContain('nothing was started');
    expect(again.stderr).toContain(`in slot 0 of ${second}, replacing its failed claim: true`);
    expect(await claims()).toMatchObject([{ state: 'failed' }, { state: 'failed' }]);
    expect(await exec('web01', '-w', '0', '--', 'true')).toMatchObject({ status: 0 });
    expect(await keys()).toEqual([]);
  });

  test('of which the session of one group is destroyed takes that slot back and goes on', async () => {
    const { second, hold, keys } = setup();
    const run = await hold('web01');
    await destroy(await on(second).lockedBy());
    await run.says(new RegExp(`reacquired the lock of ${second}; the run continues`));
    run.tell();
    expect(await run.ended).toMatchObject({ status: 0 });
    expect(await keys()).toEqual([]);
  });

  test('that is evicted from one is killed, and the others keep it as failed: 79', async () => {
    const { first, second, hold, claims } = setup();
    const run = await hold('web01');
    const evicted = await runlock(agent, ['release', first, '--owner', 'web01', '--force']);
    expect(evicted).toMatchObject({ status: 0, stderr: '' });
    const { status, stderr } = await run.ended;
    expect(status).toBe(79);
    expect(isAlive(run.command)).toBe(false);
    expect(stderr).toMatch(/\S+ evicted the run; killed the command; released slot 0 of \S+web/);
    expect(stderr).toMatch(
      new RegExp(`evicted the run from ${first}; killed the command; web01 still holds slot 0 of`),
    );
    expect(await claims()).toMatchObject([undefined, { node: 'web01', state: 'failed' }]);
    expect([await on(first).lockedBy(), await on(second).lockedBy()]).toEqual([undefined, undefined]);
    expect(await on(first).lastRun('web01')).toMatchObject({ outcome: 'evicted' });
    expect(await on(second).lastRun('web01')).toMatchObject({ outcome: 'lost' });
  });

  test('leaves figures of each group, and busy does too', async () => {
    const { folder, first, second, exec, only } = setup();
    const file = `${folder}/runlock.prom`;
    const lines = () => readFileSync(file, 'utf8').split('\n');
    await exec('web01', '--metrics-file', file, '--', 'true');
    for (const group of [first, second]) {
      expect(lines()).toContain(`runlock_last_outcome{group="${group}",outcome="succeeded"} 1`);
      expect(
        lines().filter((line) => line.startsWith(`runlock_wait_seconds{group="${group}"}`)),
      ).toHaveLength(1);
    }
    await only(first).hold('web09');
    await exec('web01', '-w', '0', '--metrics-file', file, '--', 'true');
    expect(lines()).toContain(`runlock_last_outcome{group="${second}",outcome="busy"} 1`);
    expect(lines().filter((line) => line.startsWith('runlock_wait_seconds'))).toHaveLength(1);
    expect(lines().filter((line) => line.startsWith('runlock_run_last_success'))).toHaveLength(2);
  });
});

describe('while it waits for a later group', () => {
  test('it holds the earlier one, and goes on when the later one comes free', async () => {
    const { first, second, waiting, only, lines, keys } = setup();
    const { run, other } = await waiting('web01');
    expect(await on(first).claim()).toMatchObject({ node: 'web01', state: 'running' });
    const { status, stderr } = await only(first).exec('web02', '--', 'true');
    expect(status).toBe(75);
    expect(stderr).toContain('web01 running');
    await run.says(
      new RegExp(
        `web01 is waiting for a slot of ${second} \\(slot 0: web09 running.*\\), holding its slot of ${first} meanwhile`,
      ),
    );
    expect(lines('started')).toEqual([]);
    other.tell();
    expect(await run.ended).toMatchObject({ status: 0 });
    expect(await keys()).toEqual([]);
  });

  test.for([
    ['SIGINT', 130],
    ['SIGTERM', 143],
  ] as const)('%s gives all back at once, and nothing is started', async ([signal, code]) => {
    const { waiting, first, only, claims, sessions } = setup();
    await only(first).exec('web01', '--', 'false');
    const before = await on(first).claim();
    const { run, other } = await waiting('web01');
    expect(await on(first).claim()).toMatchObject({ node: 'web01', state: 'running' });
    run.signal(signal);
    const { status, stderr } = await run.ended;
    expect(status).toBe(code);
    expect(stderr).toContain(`released slot 0 of ${first}; nothing was started`);
    // What it took back of its own failed run goes back as it was.
    expect(await claims()).toMatchObject([before, { node: 'web09' }]);
    expect(await sessions()).toHaveLength(1);
    other.tell();
    await other.ended;
  });

  test('the end of --wait, and a freeze without patience, give all back: 75 names the busy group', async () => {
    const { first, second, exec, only, claims, keys } = setup();
    await only(second).exec('web09', '--', 'false');
    const busy = await exec('web01', '-w', '1s', '--', 'true');
    expect(busy.status).toBe(75);
    expect(busy.stderr).toMatch(
      new RegExp(
        `^runlock: busy: no slot available in ${second} within 1s \\(slot 0: web09 failed[^\\n]*\\n$`,
      ),
    );
    expect(await claims()).toMatchObject([undefined, { node: 'web09' }]);
    await runlock(agent, ['release', second, '--owner', 'web09']);
    await runlock(agent, ['freeze', second, '--reason', 'release day']);
    const frozen = await exec('web01', '-w', '0', '--', 'true');
    expect(frozen.status).toBe(75);
    expect(frozen.stderr).toMatch(
      new RegExp(`^runlock: busy: ${second} was frozen \\d+s ago by .* \\(release day\\)`),
    );
    expect((await exec('web01', '--dry-run', '--', 'true')).status).toBe(75);
    expect((await keys()).filter((key) => key.startsWith(`runlock/${first}/`))).toEqual([]);
    await runlock(agent, ['thaw', second]);
  });

  test('a freeze of the earlier one stops it: it gives both back when it gets the later, and waits', async () => {
    const { first, waiting, claims, keys, lines } = setup();
    const { run, other } = await waiting('web01');
    await runlock(agent, ['freeze', first, '--reason', 'release day']);
    other.tell();
    await run.says(
      new RegExp(`${first} was frozen by \\S+ \\(release day\\) during the wait; releasing all slots`),
    );
    await on(first).waiting();
    expect(await claims()).toEqual([undefined, undefined]);
    expect(lines('started')).toEqual([]);
    await runlock(agent, ['thaw', first]);
    expect(await run.ended).toMatchObject({ status: 0 });
    expect(await keys()).toEqual([]);
  });

  test('an eviction from the earlier one ends it: 79, one line, nothing started, all given back', async () => {
    const { first, folder, only, second, args, claims, lines } = setup();
    const other = await only(second).hold('web09');
    const run = startRunlock(agent, [...args('web01'), '--', 'touch', `${folder}/started`]);
    await on(second).waiting();
    const evicted = await runlock(agent, ['release', first, '--owner', 'web01', '--force']);
    expect(evicted).toMatchObject({ status: 0, stderr: '' });
    const { status, stderr } = await run.ended;
    expect(status).toBe(79);
    expect(stderr).toMatch(
      new RegExp(`^runlock: \\S+ evicted the run from ${first}; nothing was started\\n$`),
    );
    expect(await claims()).toMatchObject([undefined, { node: 'web09' }]);
    expect(await agent.kv.keys(`runlock/${second}/.queue/`)).toEqual([]);
    expect(lines('started')).toEqual([]);
    other.tell();
    await other.ended;
    expect((await only(first).exec('web02', '--', 'true')).status).toBe(0);
  });

  test('a lost session of the earlier one is made anew; what it holds is given back all the same', async () => {
    const { first, waiting, claims, sessions } = setup();
    const { run, other } = await waiting('web01');
    const before = await on(first).lockedBy();
    await destroy(before);
    await run.says(new RegExp(`reacquired the lock of ${first}`));
    expect(await on(first).lockedBy()).not.toBe(before);
    run.signal('SIGTERM');
    expect((await run.ended).status).toBe(143);
    expect(await claims()).toMatchObject([undefined, { node: 'web09' }]);
    expect(await on(first).lockedBy()).toBeUndefined();
    expect(await sessions()).toHaveLength(1);
    other.tell();
    await other.ended;
  });

  test('a second signal while a lost lock’s rest is given back changes nothing: 79, no bug report', async () => {
    const { first, second, only, args, claims } = setup();
    const other = await only(second).hold('web09');
    await using proxy = await startProxy(agent);
    const run = startRunlock(proxy, [...args('web01'), '--', 'true']);
    await on(second).waiting();
    const isDestroy = ({ path }: ProxyRequest) => path.startsWith('/v1/session/destroy');
    const signalled = new AbortController();
    proxy.rule({ match: isDestroy, do: { until: once(signalled.signal, 'abort') } });
    const owner = `runlock/${first}/.slot/0/owner`;
    const claim = JSON.parse((await agent.kv.get(owner))?.Value ?? '{}') as object;
    await agent.kv.put(owner, JSON.stringify({ ...claim, node: 'web77', run: 'another' }));
    await proxy.seen(isDestroy);
    run.signal('SIGINT');
    // Heard before anything is answered: /proc says what is pending.
    await eventually(() => expect(pendingSignals(run.pid)).toBe(0));
    signalled.abort();
    const { status, stderr } = await run.ended;
    expect({ status, stderr }).toEqual({
      status: 79,
      stderr: `runlock: lost the lock of ${first} (its claim names web77 (run another)); nothing was started\n`,
    });
    expect(await claims()).toMatchObject([{ node: 'web77' }, { node: 'web09' }]);
    other.tell();
    await other.ended;
  });

  test('Consul refuses the later one: 77, the rule is named, and the earlier one is free at once', async () => {
    await using own = await startAgent({ acl: true });
    const rules = ['session_prefix "" { policy = "write" }', 'key_prefix "runlock/a" { policy = "write" }'];
    const token = await own.token([...rules, 'key "runlock/.freeze" { policy = "write" }'].join('\n'));
    const env = { ...own.env, CONSUL_HTTP_TOKEN: token };
    const run = startRunlock({ env }, ['exec', '-g', 'a', '-g', 'b', '-v', '--node', 'web01', '--', 'true']);
    const { status, stderr } = await run.ended;
    expect(status).toBe(77);
    expect(stderr).toContain('acquired slot 0 of a (waited');
    expect(stderr).toContain('released slot 0 of a; nothing was started');
    expect(stderr).toMatch(/runlock: .*key_prefix "runlock\/b\/" \{ policy = "write" \}[^\n]*\n$/);
    expect(await own.kv.keys('runlock/a/.slot/')).toEqual([]);
    expect((await own.http('GET', '/v1/session/list')).json()).toEqual([]);
  });

  test('what could not be given back is named with the fix, and not called given back', async () => {
    const { first, second, only, args } = setup();
    const other = await only(second).hold('web09');
    await using proxy = await startProxy(agent);
    const run = startRunlock(proxy, [...args('web01'), '-v', '--', 'true']);
    await on(second).waiting();
    const isDestroy = ({ path }: ProxyRequest) => path.startsWith('/v1/session/destroy');
    proxy.rule({ match: isDestroy, do: { status: 403, body: 'Permission denied' } });
    run.signal('SIGTERM');
    const { status, stderr } = await run.ended;
    expect(status).toBe(143);
    expect(stderr).toContain(
      `may stay and block ${first}; the next run of web01 clears the claim; to clear by hand: ` +
        `'runlock release ${first} --owner web01' (asks for confirmation)`,
    );
    expect(stderr).not.toContain('released slot 0');
    other.tell();
    await other.ended;
  });

  test('SIGKILL leaves its claim in the earlier one alone; its next run takes it back and goes on', async () => {
    const { first, waiting, exec, claims, keys } = setup();
    const { run, other } = await waiting('web01');
    run.signal('SIGKILL');
    await run.ended;
    expect(await claims()).toMatchObject([{ node: 'web01', state: 'running' }, { node: 'web09' }]);
    expect((await exec('web02', '-w', '0', '--', 'true')).stderr).toContain(`no slot available in ${first}`);
    other.tell();
    await other.ended;
    expect(await exec('web01', '-w', '20s', '--', 'true')).toMatchObject({ status: 0 });
    expect(await keys()).toEqual([]);
  });

  test('SIGKILL of a run that holds both: its next run takes both back', async () => {
    const { hold, exec, claims, keys } = setup();
    const run = await hold('web01');
    run.signal('SIGKILL');
    await run.ended;
    expect(await claims()).toMatchObject([{ node: 'web01' }, { node: 'web01' }]);
    expect(await exec('web01', '-w', '20s', '--', 'true')).toMatchObject({ status: 0 });
    expect(await keys()).toEqual([]);
  });

  test('status of either group says what the run has, where it waits, why that stands, and the fix', async () => {
    const { first, second, start, only } = setup();
    await only(second).exec('web09', '--', 'false');
    const run = start('web01', '--', 'true');
    await on(second).waiting();
    const shown = (await runlock(agent, ['status', first])).stdout;
    expect(shown).toMatch(new RegExp(`running +web01 +\\ds +true +forever +waits in ${second}\\n`));
    expect(shown).toMatch(
      new RegExp(
        `slot 0: web01 acquired the slot \\ds ago and is waiting for a slot of ${second} ` +
          `\\(slot 0: web09 failed \\ds ago \\(false, exit 1\\) and holds the slot .*; 1 run waiting\\)`,
      ),
    );
    expect(shown).toContain(`  fix: runlock release ${second} --owner web09\n`);
    const check = async () => runlock(agent, ['status', '--check', first]);
    const behind = `web01, waiting in ${second}, which is blocked by web09, failed \\ds ago \\(false, exit 1\\)`;
    const kept = await check();
    expect(kept.status).toBe(1);
    expect(kept.stdout).toMatch(
      new RegExp(`^RUNLOCK WARNING - ${first} is blocked by ${behind}, no runs waiting`),
    );
    const late = only(first).start('web02', '-w', '60s', '--', 'true');
    await on(first).waiting();
    const stands = await check();
    expect(stands.status).toBe(2);
    expect(stands.stdout).toMatch(new RegExp(`^RUNLOCK CRITICAL - ${first} is blocked by ${behind}, 1 run`));
    late.signal('SIGTERM');
    await late.ended;
    const later = (await runlock(agent, ['status', second])).stdout;
    expect(later).toMatch(new RegExp(` 1 +web01 +\\ds +true +slot 0 of ${first}\\n`));
    const groups = async (...names: string[]) => {
      const { stdout } = await runlock(agent, ['status', '--json', ...names]);
      return (JSON.parse(stdout) as { groups: { group: string }[] }).groups;
    };
    const holds = { group: first, slots: [{ node: 'web01', also: [{ group: second, place: 1 }] }] };
    const waits = {
      group: second,
      queue: [{ node: 'web01', also: [{ group: first, slot: 0, state: 'running' }] }],
    };
    expect(await groups(first)).toMatchObject([holds]);
    expect(await groups(second)).toMatchObject([waits]);
    expect((await groups()).filter(({ group }) => [first, second].includes(group))).toMatchObject([
      holds,
      waits,
    ]);
    await runlock(agent, ['release', second, '--owner', 'web09']);
    expect(await run.ended).toMatchObject({ status: 0 });
  });

  test('status --watch of the earlier group follows the later one too', async () => {
    const { first, second, waiting } = setup();
    const watch = startRunlock(agent, ['status', '--watch', '--json', first]);
    const { run, other } = await waiting('web01');
    const why = () =>
      watch
        .stdout()
        .split('\n')
        .slice(0, -1)
        .map((line) => (JSON.parse(line) as { groups: { why: string }[] }).groups[0]?.why ?? '');
    await eventually(() =>
      expect(why().at(-1)).toContain(`is waiting for a slot of ${second} (slot 0: web09 has been running sh`),
    );
    await runlock(agent, ['freeze', second, '--reason', 'release day']);
    await eventually(() => expect(why().at(-1)).toContain(`${second} was frozen`));
    watch.signal('SIGINT');
    expect((await watch.ended).status).toBe(0);
    await runlock(agent, ['thaw', second]);
    run.signal('SIGTERM');
    other.tell();
    await Promise.all([run.ended, other.ended]);
  });

  test('the live line names the group that it waits for', async () => {
    const { second, only, args, first } = setup();
    await only(second).hold('web09');
    const terminal = startInTerminal(agent, [...args('web01'), '--', 'true']);
    await terminal.shows(
      new RegExp(`waiting \\d+s for ${second} · place 1 · web09 running sh for \\d+s · holds`),
    );
    terminal.type('\x03');
    expect(await terminal.ended).toBe(130);
    expect(await on(first).claim()).toBeUndefined();
  });
});

test('a second run of the node in one of them is busy, and gives back what it took elsewhere', async () => {
  const { first, second, hold, args } = setup();
  const run = await hold('web01');
  const before = `a/${first}`;
  const { status } = await runlock(agent, [...args('web01', '-g', before), '--', 'true']);
  expect(status).toBe(75);
  expect(await agent.kv.keys(`runlock/${before}/.slot/`)).toEqual([]);
  const inside = await runlock(agent, ['status'], { env: { RUNLOCK_GROUP: `${first},${second}` } });
  expect(inside.status).toBe(0);
  run.tell();
  await run.ended;
});

test('acquire and release take one group, and say so', async () => {
  const env = { RUNLOCK_GROUP: 'a,b' };
  for (const command of ['acquire', 'release']) {
    const { status, stderr } = await runlock(agent, [command], { env });
    expect(status).toBe(64);
    expect(stderr).toBe(`runlock: ${command} takes one group, not 2 (a, b); run it once for each\n`);
  }
});
