// What a run has left running, and the node's next one: an orphan of a killed run keeps it away, whatever it did to be
// taken for nobody's; what a run that ended left does not.
import { spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { chmodSync, chownSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { openRunFiles } from '../../src/process/run-file.ts';
import { runFolders } from '../../src/process/run-folders.ts';
import { startTime } from '../../src/process/process-tree.ts';
import { WITHOUT_CGROUP, whyNoCell } from '../support/kernel-count.ts';
import { useAgent } from '../support/use-agent.ts';
import { end, eventually, guardOf, isAlive, untilGone } from '../support/processes.ts';
import { groupOf } from '../support/group.ts';
import { ownStage } from '../support/own-stage.ts';
import type { OwnStage } from '../support/own-stage.ts';
import { spawnRunlock } from '../support/program.ts';
import type { Running, StartOptions } from '../support/program.ts';
import { startProxy } from '../support/proxy.ts';

const agent = useAgent();

const LONG = { timeout: 120_000 };
const uid = process.geteuid?.() ?? 0;
const isRoot = uid === 0;
const runFiles = openRunFiles({
  ...{ uid, folders: runFolders(uid, process.env['XDG_RUNTIME_DIR']), emit: () => undefined },
});

const on = (group: string) => groupOf(agent, group);
/** Once, and does not wait. */
const once = (group: string, node: string, options: StartOptions = {}) =>
  spawnRunlock(agent, on(group).words(node, '-w', '0', '--', 'true'), options).ended;

/** SIGKILL of runlock and its guard, with no time for one to see the other go; then its session's end. */
async function killBoth(run: Pick<Running, 'pid'>, group: string): Promise<string> {
  const guard = guardOf(run.pid);
  process.kill(run.pid, 'SIGSTOP');
  process.kill(guard, 'SIGKILL');
  process.kill(run.pid, 'SIGKILL');
  await Promise.all([untilGone(run.pid), untilGone(guard)]);
  const session = await on(group).lockedBy();
  if (session === undefined) throw new Error('no session holds the slot');
  await agent.http('PUT', `/v1/session/destroy/${session}`);
  expect(await on(group).lockedBy()).toBeUndefined();
  const { run: id = '', state } = (await on(group).claim()) ?? {};
  expect(state).toBe('running');
  return id;
}

interface Hiding {
  readonly what: string;
  /** Shell text; `$1` is the folder. */
  readonly script: string;
  /** Its processes, by the names of their files. */
  readonly pids: readonly string[];
}

/** None of them has the run's mark in its environment when it is looked for. */
const HIDING: readonly Hiding[] = [
  {
    what: 'a command with an empty environment',
    script: 'echo $$ >"$1/command.pid"; exec env -i sleep 300',
    pids: ['command'],
  },
  {
    what: 'a command that wrote its title over its environment',
    script: 'echo $$ >"$1/command.pid"; exec perl -e \'$0 = "x" x 4000; sleep 300\'',
    pids: ['command'],
  },
  {
    what: 'a child with an empty environment in a group of its command’s session, which is gone',
    script:
      'set -m; env -i folder="$1" sh -c \'echo $$ >"$folder/child.pid"; exec sleep 300\' & echo $$ >"$1/command.pid"; exec sleep 300',
    pids: ['child'],
  },
  {
    what: 'a daemon with an empty environment in a session of its own, whose parents are gone',
    script:
      'sh -c \'echo $$ >"$1/parent.pid"; env -i folder="$1" setsid sh -c "echo \\$\\$ >\\"\\$folder/daemon.pid\\"; exec sleep 300" & while ! [ -e "$1/leave" ]; do sleep 0.1; done\' sh "$1" & echo $$ >"$1/command.pid"; exec sleep 300',
    pids: ['daemon'],
  },
];

const places = [
  ...(whyNoCell === undefined ? [{ place: 'in a cgroup', through: [] as readonly string[] }] : []),
  ...(isRoot ? [{ place: 'without a cgroup', through: WITHOUT_CGROUP }] : []),
];

describe.each(places)('SIGKILL of runlock and its guard, hold forever, $place', ({ place, through }) => {
  test.concurrent.each(HIDING)('$what keeps its node away, and others too', LONG, async (hiding) => {
    using here = ownStage();
    const group = `orphan/${here.runId}`;
    const args = on(group).words(
      'web01',
      '--hold',
      'forever',
      '--',
      'sh',
      '-c',
      hiding.script,
      'sh',
      here.folder,
    );
    const run = here.start(agent, args, { through });
    const starting = [];
    for (const name of ['command', ...hiding.pids]) starting.push(await here.pid(name));
    const [command = 0, ...pids] = starting;
    // It is hidden by now: nothing of its environment tells whose it is.
    await eventually(() => {
      for (const pid of pids) expect(readFileSync(`/proc/${pid}/environ`, 'latin1')).not.toContain('RUNLOCK');
    });
    const known = () => runFiles.list().find(({ groups }) => groups.includes(`runlock/${group}`));
    // The command may hide before runlock has heard of its start.
    await eventually(() => expect(known()?.command).toBeDefined());
    // Without a cgroup a look remembers who will have no parents.
    if (place === 'without a cgroup' && hiding.pids.includes('daemon'))
      await eventually(() =>
        expect(known()?.members?.map(({ pid }) => pid)).toEqual(expect.arrayContaining(pids)),
      );
    writeFileSync(`${here.folder}/leave`, '');
    if (hiding.pids.includes('daemon')) await untilGone(await here.pid('parent'));
    const id = await killBoth(run, group);
    if (!pids.includes(command)) end(command);
    const again = await once(group, 'web01');
    expect(again.status).toBe(75);
    expect(again.stderr).toContain('processes of an earlier run of ');
    for (const pid of pids) expect(again.stderr).toMatch(new RegExp(`\\b${pid}\\b`));
    expect((await once(group, 'web02')).status).toBe(75);
    expect(pids.every(isAlive)).toBe(true);
    pids.forEach(end);
    await Promise.all(pids.map((pid) => untilGone(pid)));
    expect(runFiles.read(id)).toBeDefined();
    expect(await once(group, 'web01')).toMatchObject({ status: 0, stderr: '' });
    expect(runFiles.read(id)).toBeUndefined();
  });
});

test.concurrent(
  'an orphan keeps its node away long after its session is gone, and is named, noted or not',
  LONG,
  async () => {
    using here = ownStage();
    const script = `echo $$ >"${here.folder}/command.pid"; exec sleep 300`;
    const run = here.start(agent, on('orphan/marked').words('web01', '--', 'sh', '-c', script));
    const pid = await here.pid('command');
    runFiles.remove(await killBoth(run, 'orphan/marked'));
    const again = await once('orphan/marked', 'web01');
    expect(again.status).toBe(75);
    expect(again.stderr).toMatch(new RegExp(`are still running.*\\b${pid}\\b`));
    end(pid);
    await untilGone(pid);
    expect(await once('orphan/marked', 'web01')).toMatchObject({ status: 0, stderr: '' });
  },
);

test.concurrent(
  'a run’s secret is in its processes and on its host: not in Consul, a command line or log',
  async () => {
    using here = ownStage();
    const group = `secret/${here.runId}`;
    const script = `echo $RUNLOCK_RUN_MARK >"${here.folder}/mark"; echo $$ >"${here.folder}/command.pid"; exec sleep 300`;
    const run = here.start(
      agent,
      on(group).words('web01', '-vv', '--log-format', 'json', '--', 'sh', '-c', script),
    );
    const pid = await here.pid('command');
    const [nonce = ''] = here.lines('mark');
    expect(nonce).toMatch(/^[0-9a-f]{32}$/);
    const lines = [run.pid, pid, guardOf(run.pid)].map((each) =>
      readFileSync(`/proc/${each}/cmdline`, 'utf8'),
    );
    const stored = await agent.kv.tree(`runlock/${group}/`);
    run.signal('SIGTERM');
    const { stderr } = await run.ended;
    const all = [...lines, stderr, JSON.stringify([stored, await agent.kv.tree(`runlock/${group}/`)])].join(
      '\n',
    );
    expect(all).toContain('sleep');
    expect(all).toContain(group);
    expect(all).not.toContain(nonce);
  },
);

test.concurrent.each(isRoot ? ['written down', 'not written down'] : [])(
  'who knows a killed run’s id (its record %s) keeps nobody’s node away with it',
  LONG,
  async (how) => {
    using here = ownStage();
    const group = `orphan/${here.runId}`;
    const script = `echo $$ >"${here.folder}/command.pid"; exec sleep 300`;
    const run = here.start(agent, on(group).words('web01', '--', 'sh', '-c', script));
    const pid = await here.pid('command');
    const { run: id = '' } = (await on(group).claim()) ?? {};
    const env = { PATH: process.env['PATH'], RUNLOCK_RUN_ID: id, RUNLOCK_RUN_MARK: id, RUNLOCK_RUN: id };
    const user = ['--reuid=65534', '--regid=65534', '--clear-groups', 'sleep', '300'];
    const theirs = spawn('setpriv', user, { env, stdio: 'ignore', detached: true });
    here.adopt(theirs.pid ?? 0);
    await eventually(() => expect(readFileSync(`/proc/${theirs.pid}/comm`, 'utf8')).toBe('sleep\n'));
    await killBoth(run, group);
    if (how !== 'written down') runFiles.remove(id);
    end(pid);
    await untilGone(pid);
    expect(await once(group, 'web01')).toMatchObject({ status: 0, stderr: '' });
    expect(isAlive(theirs.pid ?? 0)).toBe(true);
  },
);

test.concurrent(
  'the daemon of a good run whose slot could not be given back keeps nobody away',
  LONG,
  async () => {
    using here = ownStage();
    const group = 'daemon';
    await using proxy = await startProxy(agent);
    const script =
      '(sh -c \'echo $$ >"$0/daemon.pid"; exec sleep 300\' "$1" >/dev/null 2>&1 &); echo $$ >"$1/command.pid"; while ! [ -e "$1/end" ]; do sleep 0.05; done';
    const args = on(group).words('web01', '--', 'sh', '-c', script, 'sh', here.folder);
    const run = here.start(proxy, args);
    const [daemon] = [await here.pid('daemon'), await here.pid('command')];
    const { run: id = '' } = (await on(group).claim()) ?? {};
    // Consul is away for longer than a run tries to give its slot back.
    proxy.rule({ do: 'drop-before' });
    proxy.sever();
    writeFileSync(`${here.folder}/end`, '');
    const ended = await run.ended;
    expect(ended.status).toBe(0);
    expect(ended.stderr).toMatch(
      /; the next run of \S+ clears (?:this|the claim); to clear by hand: '.*' \(asks for confirmation\)/,
    );
    expect(await on(group).claim()).toMatchObject({ state: 'running', run: id });
    expect(runFiles.read(id)?.ended).toMatchObject({ outcome: 'succeeded', exitCode: 0 });
    const askedMs = performance.now();
    expect(await once(group, 'web01')).toMatchObject({ status: 0, stderr: '' });
    // Not the ten seconds that a guard would be waited for.
    expect(performance.now() - askedMs).toBeLessThan(5_000);
    expect(isAlive(daemon)).toBe(true);
    expect(runFiles.read(id)).toBeUndefined();
  },
);

/** A container's worth of a pid namespace: its init outlives runlock. */
const IN_PID_NAMESPACE = ['unshare', '-pf', '--mount-proc'];
const WITH_INIT = [...IN_PID_NAMESPACE, 'sh', '-c', 'setsid "$@" & exec sleep 300', 'sh'];

/** Children as this namespace numbers them. */
const childrenOf = (pid: number) =>
  readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').split(' ').filter(Boolean).map(Number);

function firstChildOf(pid: number): number {
  const [child] = childrenOf(pid);
  if (child === undefined) throw new Error(`${pid} has no child`);
  return child;
}

const isCommand = (pid: number) => readFileSync(`/proc/${pid}/cmdline`, 'utf8') === 'sleep\0' + '300.25\0';

/** A run in a pid namespace of its own, by the pids that it has here. */
async function inNamespace(here: OwnStage, group: string, command: readonly string[]) {
  const args = on(group).words('web01', '--hold', 'forever', '--', ...command);
  const outer = here.start(agent, args, { through: WITH_INIT });
  return eventually(() => {
    const init = firstChildOf(outer.pid);
    here.adopt(init);
    const runlock = firstChildOf(init);
    const orphan = childrenOf(runlock).find(isCommand);
    if (orphan === undefined) throw new Error('no command yet');
    return { init, runlock: { pid: runlock }, orphan };
  });
}

describe.runIf(isRoot)('other namespaces of the same boot', () => {
  const SLEEP = ['sleep', '300.25'];
  test.concurrent.each([
    ['by its mark', SLEEP, true],
    ...(whyNoCell === undefined ? [['by its cgroup', ['env', '-i', ...SLEEP], false] as const] : []),
  ] as const)(
    'an orphan in another pid namespace keeps its node away, known %s',
    LONG,
    async (_, command, isUnnoted) => {
      using here = ownStage();
      const group = `orphan/${here.runId}`;
      const { init, runlock, orphan } = await inNamespace(here, group, command);
      const id = await killBoth(runlock, group);
      if (isUnnoted) runFiles.remove(id);
      const again = await once(group, 'web01');
      expect(again.status).toBe(75);
      expect(again.stderr).toMatch(new RegExp(`are still running.*\\b${orphan}\\b`));
      expect(isAlive(orphan)).toBe(true);
      end(init);
      await untilGone(orphan);
      expect(await once(group, 'web01')).toMatchObject({ status: 0, stderr: '' });
    },
  );

  test.concurrent('a run that lives in another pid namespace is nobody’s orphan', LONG, async () => {
    using here = ownStage();
    const group = `orphan/${here.runId}`;
    await inNamespace(here, group, SLEEP);
    const again = await once(group, 'web01');
    expect(again).toMatchObject({ status: 75 });
    expect(again.stderr).not.toContain('of an earlier run');
  });

  test.runIf(whyNoCell === undefined)(
    'an orphan keeps its node’s run in another pid namespace away: its cgroup is named',
    { ...LONG, concurrent: true },
    async () => {
      using here = ownStage();
      const group = `orphan/${here.runId}`;
      const script = `echo $$ >"${here.folder}/command.pid"; exec sleep 300`;
      const args = on(group).words('web01', '--hold', 'forever', '--', 'sh', '-c', script);
      const run = here.start(agent, args);
      const pid = await here.pid('command');
      const id = await killBoth(run, group);
      const again = await once(group, 'web01', { through: IN_PID_NAMESPACE });
      expect(again.status).toBe(75);
      expect(again.stderr).toMatch(
        new RegExp(`are still running .*in another pid namespace, cgroup /\\S*/runlock-${id}\\b`),
      );
      end(pid);
      await untilGone(pid);
      const last = await once(group, 'web01', { through: IN_PID_NAMESPACE });
      expect(last).toMatchObject({ status: 0, stderr: '' });
    },
  );

  test.concurrent(
    'a run that lives in another time namespace is not taken for dead for its start time',
    LONG,
    async () => {
      using here = ownStage();
      const group = `orphan/${here.runId}`;
      const script = `echo $$ >"${here.folder}/command.pid"; exec env -i sleep 300`;
      const run = here.start(agent, on(group).words('web01', '--', 'sh', '-c', script), {
        through: ['unshare', '-T', '-f', '--boottime', '100000', ...WITHOUT_CGROUP],
      });
      const pid = await here.pid('command');
      await eventually(() => expect(readFileSync(`/proc/${pid}/environ`, 'latin1')).not.toContain('RUNLOCK'));
      const before = await on(group).lockedBy();
      expect(before).toBeDefined();
      const again = await once(group, 'web01');
      expect(again).toMatchObject({ status: 75 });
      expect(again.stderr).not.toContain('of an earlier run');
      expect(isAlive(run.pid)).toBe(true);
      expect(await on(group).lockedBy()).toBe(before);
      // A killed unshare would leave it.
      here.adopt(firstChildOf(run.pid));
    },
  );
});

describe.runIf(isRoot)('runs of several users', () => {
  const user = 65_534;
  const AS_USER = ['setpriv', `--reuid=${user}`, `--regid=${user}`, '--clear-groups'];
  const command = ['sh', '-c', 'echo $$ >"$0/command.pid"; exec perl -e \'$0 = "x" x 4000; sleep 300\''];

  /** Nothing of its environment is left when it is a killed run's. */
  async function killedRun(here: OwnStage, group: string, options: StartOptions): Promise<number> {
    chmodSync(here.folder, 0o777);
    const args = on(group).words('web01', '--hold', 'forever', '--', ...command, here.folder);
    const ranAs = options.through === AS_USER ? user : 0;
    const run = here.start(agent, args, options);
    const pid = await here.pid('command');
    await eventually(() => expect(readFileSync(`/proc/${pid}/environ`, 'latin1')).not.toContain('RUNLOCK'));
    const noted = openRunFiles({
      ...{ uid: ranAs, folders: runFolders(ranAs, options.env?.['XDG_RUNTIME_DIR']), emit: () => undefined },
    });
    await eventually(() =>
      expect(noted.list().find(({ groups }) => groups.includes(`runlock/${group}`))?.command).toBeDefined(),
    );
    await killBoth(run, group);
    return pid;
  }

  test.concurrent('root’s orphan keeps another user’s run away, which can not see it', LONG, async () => {
    using here = ownStage();
    const group = `orphan/${here.runId}`;
    const pid = await killedRun(here, group, {});
    const again = await once(group, 'web01', { through: AS_USER });
    expect(again.status).toBe(75);
    expect(again.stderr).toContain('another user (uid 0) started it');
    expect(again.stderr).toContain(`'runlock release ${group} --owner web01' (asks for confirmation)`);
    expect(isAlive(pid)).toBe(true);
    end(pid);
    await untilGone(pid);
    const release = ['release', group, '--owner', 'web01', '--force'];
    expect((await spawnRunlock(agent, release).ended).status).toBe(0);
    expect(await once(group, 'web01', { through: AS_USER })).toMatchObject({ status: 0, stderr: '' });
  });

  test.concurrent(
    'another user’s orphan keeps root’s run away, by what that user’s run wrote down',
    LONG,
    async () => {
      using here = ownStage();
      const group = `orphan/${here.runId}`;
      const pid = await killedRun(here, group, { through: AS_USER });
      const again = await once(group, 'web01');
      expect(again.status).toBe(75);
      expect(again.stderr).toMatch(new RegExp(`are still running.*\\b${pid}\\b`));
      expect(isAlive(pid)).toBe(true);
      end(pid);
      await untilGone(pid);
      expect(await once(group, 'web01')).toMatchObject({ status: 0, stderr: '' });
    },
  );

  test.concurrent(
    'what a user’s run wrote down outlives the folder of the user’s last session',
    LONG,
    async () => {
      using here = ownStage();
      const group = `orphan/${here.runId}`;
      const XDG_RUNTIME_DIR = `${here.folder}/session`;
      const login = () => {
        mkdirSync(XDG_RUNTIME_DIR, { mode: 0o700 });
        chownSync(XDG_RUNTIME_DIR, user, user);
      };
      login();
      const options = { through: AS_USER, env: { XDG_RUNTIME_DIR } };
      const pid = await killedRun(here, group, options);
      rmSync(XDG_RUNTIME_DIR, { recursive: true });
      login();
      const again = await once(group, 'web01', options);
      expect(again.status).toBe(75);
      expect(again.stderr).toMatch(new RegExp(`are still running.*\\b${pid}\\b`));
      end(pid);
      await untilGone(pid);
      expect(await once(group, 'web01', options)).toMatchObject({ status: 0, stderr: '' });
    },
  );
});

describe('what a run wrote down', () => {
  test.concurrent(
    'is there while it runs, without a command while it is next, and goes with it',
    async () => {
      using here = ownStage();
      const group = `noted-${here.runId}`;
      const script = `echo $$ >"${here.folder}/command.pid"; while ! [ -e "${here.folder}/end" ]; do sleep 0.05; done`;
      const run = here.start(agent, on(group).words('web01', '--', 'sh', '-c', script));
      const pid = await here.pid('command');
      const waiter = here.start(agent, on(group).words('web02', '--', 'true'));
      await on(group).waiting();
      const mine = () => runFiles.list().filter(({ groups }) => groups.includes(`runlock/${group}`));
      const of = (runlockPid: number) => mine().find(({ runlock: { pid } }) => pid === runlockPid);
      await eventually(() => expect(of(run.pid)).toMatchObject({ command: { pid } }));
      expect(of(run.pid)).toMatchObject({
        node: 'web01',
        runlock: { pid: run.pid, startTime: startTime(run.pid) },
        guard: { pid: guardOf(run.pid) },
        command: { pid, startTime: startTime(pid) },
      });
      await eventually(() => expect(of(waiter.pid)).toBeDefined());
      expect(of(waiter.pid)).not.toHaveProperty('command');
      waiter.signal('SIGTERM');
      await waiter.ended;
      expect(mine()).toHaveLength(1);
      writeFileSync(`${here.folder}/end`, '');
      expect(await run.ended).toMatchObject({ status: 0, stderr: '' });
      expect(mine()).toEqual([]);
    },
  );

  test.concurrent.each([
    ['a run that failed', ['exec', '--', 'false'], 1],
    ['a run that can not be started', ['exec', '--', '/etc/passwd'], 126],
    ['a dry run', ['exec', '--dry-run', '--', 'true'], 0],
    ['acquire', ['acquire'], 0],
  ] as const)('nothing stays of %s', async (_, [subcommand, ...args], status) => {
    const group = `noted-${randomUUID()}`;
    expect((await spawnRunlock(agent, [subcommand, '-g', group, ...args]).ended).status).toBe(status);
    expect(runFiles.list().flatMap(({ groups }) => groups)).not.toContain(`runlock/${group}`);
  });
});
