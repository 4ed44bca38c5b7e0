// The agent's unit under a real systemd, from the package that is installed: what it promises of runs, whatever becomes of the agent.
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { execa } from 'execa';
import { beforeAll, describe, expect, onTestFinished, test } from 'vitest';
import { endAgents, startAgent } from '../support/consul.ts';
import type { Agent } from '../support/consul.ts';
import { groupOf } from '../support/group.ts';
import { bootMachine, whyNoMachine } from '../support/machine.ts';
import type { Machine } from '../support/machine.ts';
import { onMachine } from '../support/on-machine.ts';
import type { OnMachine } from '../support/on-machine.ts';
import { eventually } from '../support/processes.ts';
import { RUNLOCK } from '../support/program.ts';
import { runlock } from '../support/runlock.ts';

const UNIT = 'runlock-agent.service';
const why = await whyNoMachine();
if (why !== undefined) console.warn(`The agent's unit runs in no test: ${why}.`);

/** A package of the real program, in some version: packed by xz it would take a quarter of a minute. */
async function packed(folder: string, version: string): Promise<string> {
  const args = ['scripts/run.js', 'scripts/build-deb.ts', '--program', '/bin/true', '--out', folder];
  const { stdout: small } = await execa(process.execPath, args);
  const tree = join(folder, `tree-${version}`);
  await execa('dpkg-deb', ['-R', small, tree]);
  await execa('cp', [RUNLOCK, join(tree, 'usr/bin/runlock')]);
  const control = join(tree, 'DEBIAN/control');
  writeFileSync(control, readFileSync(control, 'utf8').replace(/^Version: .*$/m, `Version: ${version}`));
  const deb = join(folder, `runlock-${version}.deb`);
  await execa('dpkg-deb', ['--build', '--root-owner-group', '-Znone', tree, deb]);
  return deb;
}

/** A package that does to a host what packages do, by its script. */
async function daemonPackage(folder: string): Promise<string> {
  const tree = join(folder, 'tree-daemon');
  mkdirSync(join(tree, 'DEBIAN'), { recursive: true });
  mkdirSync(join(tree, 'usr/lib/systemd/system'), { recursive: true });
  writeFileSync(
    join(tree, 'DEBIAN/control'),
    'Package: runlock-test-daemon\nVersion: 1\nArchitecture: all\nMaintainer: nobody <nobody@packages.invalid>\nDescription: a daemon\n',
  );
  writeFileSync(
    join(tree, 'usr/lib/systemd/system/test-daemon.service'),
    '[Unit]\nDefaultDependencies=no\n[Service]\nUser=testdaemon\nExecStart=/bin/sleep infinity\n',
  );
  writeFileSync(
    join(tree, 'DEBIAN/postinst'),
    '#!/bin/sh\nset -e\nuseradd --system testdaemon\nsystemctl daemon-reload\nsystemctl restart test-daemon\n',
    { mode: 0o755 },
  );
  const deb = join(folder, 'daemon.deb');
  await execa('dpkg-deb', ['--build', '--root-owner-group', '-Znone', tree, deb]);
  return deb;
}

describe.skipIf(why !== undefined)(
  `under a real systemd${why === undefined ? '' : ` (skipped: ${why})`}`,
  // Each step is quick; on a busy machine there are many of them.
  { timeout: 150_000 },
  () => {
    let machine: Machine;
    let on: OnMachine;
    let consul: Agent;
    let token: string;
    let next: string;

    const mainPid = async () => (await on.show(UNIT, 'MainPID'))['MainPID'] ?? '';
    const registered = (status = /^registered as web01/) =>
      eventually(async () => {
        const { ActiveState, StatusText } = await on.show(UNIT, 'ActiveState', 'StatusText');
        expect(ActiveState).toBe('active');
        expect(StatusText).toMatch(status);
      }, 60_000);
    /** Another process than `last` is the agent. */
    const replaced = (last: string) =>
      eventually(async () => {
        const pid = await mainPid();
        expect(pid).not.toBe('0');
        expect(pid).not.toBe(last);
      }, 60_000).then(() => registered());
    const scopes = async (pattern: string) =>
      (await on.ok('systemctl', 'list-units', '--plain', '--no-legend', `runlock-${pattern}.scope`))
        .split('\n')
        .filter((line) => line !== '')
        .map((line) => line.split(' ')[0] ?? '');
    const job = (...words: string[]) => runlock(consul, ['job', ...words]);
    const targetOf = async (id: string) => {
      const { stdout } = await job('show', id, '--json');
      return (JSON.parse(stdout) as { targets: { state: string; exitCode?: number; detail?: string }[] })
        .targets[0];
    };
    const becomes = (id: string, state: string) =>
      eventually(async () => expect(await targetOf(id)).toMatchObject({ state }), 60_000);
    const start = async (task: string, id: string) =>
      expect(await job('start', task, '--node', 'web01', '--id', id)).toMatchObject({ status: 0 });
    const task = (name: string, command: readonly string[], more = '') =>
      machine.write(
        `/etc/runlock/tasks.d/${name}.toml`,
        `command = ${JSON.stringify(command)}\ngroup = "${name}"\n${more || 'allow = ["ops"]'}\n`,
      );
    /** A task that goes on until it is told: its process, and how to tell it. */
    const slow = async (id: string) => {
      await start('slow', id);
      await becomes(id, 'running');
      const pid = await eventually(() => {
        const [, found] = /^(\d+)\n$/.exec(on.note(`${id}.pid`)) ?? [];
        if (found === undefined) throw new Error('no pid yet');
        return found;
      }, 30_000);
      return { pid, tell: () => writeFileSync(join(machine.folder, `${id}.go`), '') };
    };
    const lives = async (pid: string) => (await machine.run('kill', '-0', pid)).status === 0;
    /** For the agent alone. */
    const dropIn = async (text: string) => {
      await machine.write(`/etc/systemd/system/${UNIT}.d/test.conf`, `[Service]\n${text}`);
      await on.ok('systemctl', 'daemon-reload');
    };

    beforeAll(async () => {
      consul = await startAgent({ acl: true, name: 'web01' });
      machine = await bootMachine();
      on = onMachine(machine);
      const { folder } = machine;
      next = await packed(folder, '99.0.0-1');
      const said = await on.ok('dpkg', '--no-triggers', '--install', await packed(folder, '0.0.1-1'));
      expect(said).not.toMatch(/syntax|warning|failed/i);
      const wait = `echo $$ >${folder}/$id.pid; until [ -e ${folder}/$id.go ]; do sleep 0.05; done`;
      const slowly = on.script(
        'slow',
        `id=\${RUNLOCK_JOB#ops/}; ${wait}; cat /proc/self/cgroup >${folder}/$id.cgroup`,
      );
      await task('slow', [slowly]);
      await task('as-root', [on.script('as-root', `exec ${folder}/as-root.steps`)]);
      await task('reboots', [on.script('reboots', 'exit 35')], 'allow = ["ops"]\nreboot_codes = [35]');
      await task(
        'leaves',
        [
          on.script(
            'leaves',
            `setsid sleep 600 >/dev/null 2>&1 </dev/null & cat /proc/self/cgroup >>${folder}/leaves.out`,
          ),
        ],
        'on = ["state:web/x"]\non_first = "skip"\ntriggers_per_hour = 60',
      );
      const groups = ['slow', 'as-root', 'reboots', 'leaves'].flatMap((name) => ['--group', name]);
      const rules = [
        ...['policy', 'agent', '--node', 'web01', '--principal', 'ops', ...groups],
        ...['--state', 'web/x', '--tasks-dir', '/etc/runlock/tasks.d'],
      ];
      token = await consul.token(await on.ok('runlock', ...rules));
      await machine.write('/etc/runlock/token', `${token}\n`);
      await on.ok('chmod', '600', '/etc/runlock/token');
      await machine.write('/etc/runlock/agent.env', `CONSUL_HTTP_ADDR=${consul.address}\n`);
      await dropIn('RestartSec=1\nLimitNOFILE=1024:4096\n');
      await on.ok('systemctl', 'enable', '--now', UNIT);
      await registered();
      return async () => {
        await machine.stop();
        await endAgents();
      };
    }, 240_000);

    test('a run is in a scope of its own, with all that root may do, and with nothing of the agent’s', async () => {
      on.script(
        'as-root.steps',
        `{ cat /proc/self/cgroup; readlink /proc/self/ns/mnt; grep -E '^(NoNewPrivs|Cap...|Seccomp|Seccomp_filters):' /proc/self/status
           ulimit -Sn; ulimit -Hn; echo "oom $(cat /proc/self/oom_score_adj) umask $(umask)"
           echo own; env | cut -d= -f1; echo run; tr '\\0' '\\n' </proc/$PPID/environ | cut -d= -f1; echo end; } >${machine.folder}/facts.out`,
      );
      await start('as-root', 'facts');
      const facts = await on.noteOf('facts.out');
      await becomes('facts', 'good');
      const own = '0::/system\\.slice/runlock-ops-facts-[0-9a-f]{8}\\.scope/runlock-[0-9a-f-]{36}';
      expect(facts).toMatch(new RegExp(`^${own}$`, 'm'));
      const ofInit = await on.ok(
        ...[
          'sh',
          '-c',
          "readlink /proc/1/ns/mnt; grep -E '^(NoNewPrivs|CapBnd|CapEff|Seccomp|Seccomp_filters):' /proc/1/status",
        ],
      );
      for (const line of ofInit.trim().split('\n')) expect(facts.split('\n')).toContain(line);
      // The runtime has raised its own.
      expect(facts).toContain('\n1024\n4096\noom 0 umask 0022\n');
      const [, ofCommand = '', ofRun = ''] = /\nown\n(.*)\nrun\n(.*)\nend\n$/s.exec(facts) ?? [];
      expect(ofCommand).not.toMatch(/CONSUL_HTTP|NOTIFY|WATCHDOG|INVOCATION|DIRECTORY/);
      expect(ofRun).toMatch(/^CONSUL_HTTP_TOKEN_FILE$/m);
      expect(ofRun).not.toMatch(/NOTIFY_SOCKET|WATCHDOG|JOURNAL_STREAM|_DIRECTORY|SYSTEMD/);
    });

    test('what configuration management does to a host, a run does', async () => {
      const { folder } = machine;
      on.script(
        'as-root.steps',
        `set -e
         apt-get -o Dpkg::Options::=--no-triggers install --yes --no-install-recommends ${await daemonPackage(folder)}
         systemctl is-active test-daemon
         useradd --create-home runlockweb; su runlockweb -c 'id -un' >${folder}/deeds.out
         mkdir -p /boot /mnt/kept; for place in /etc /usr/lib /boot; do echo text >$place/runlock-test; done
         mount -t tmpfs kept /mnt/kept
         unshare --net true
         (ulimit -n 4096; ulimit -c unlimited; ulimit -n) >>${folder}/deeds.out
         setarch --addr-no-randomize true; chrt --fifo 1 true; setpriv --no-new-privs true
         mknod ${folder}/device b 7 99; mknod /tmp/null c 1 3; echo x >/tmp/null
         systemctl restart test-daemon
         { systemctl show --property=User --value test-daemon; echo end; } >>${folder}/deeds.out`,
      );
      await start('as-root', 'deeds');
      await eventually(async () => expect((await targetOf('deeds'))?.state).toMatch(/good|failed/), 60_000);
      const log = await on.ok('cat', '/var/log/runlock/ops/deeds.as-root.log');
      expect(await targetOf('deeds'), log).toMatchObject({ state: 'good' });
      expect(await on.noteOf('deeds.out')).toBe('runlockweb\n4096\ntestdaemon\nend\n');
      // They are the host's, and stay.
      expect(await on.ok('stat', '--file-system', '--format=%T', '/mnt/kept')).toBe('tmpfs\n');
      expect(await on.ok('cat', '/etc/runlock-test', '/usr/lib/runlock-test', '/boot/runlock-test')).toBe(
        'text\n'.repeat(3),
      );
      expect(await on.show('test-daemon.service', 'ActiveState')).toEqual({ ActiveState: 'active' });
    });

    test('a run lives on while the agent is restarted, killed, hangs, and gets another version', async () => {
      const run = await slow('long');
      const [scope = ''] = await scopes('ops-long-*');
      expect((await on.show(scope, 'After'))['After']).toMatch(
        /network\.target.*consul\.service|consul\.service.*network\.target/,
      );
      const after = async (what: string, last: string) => {
        await replaced(last);
        expect(await lives(run.pid), what).toBe(true);
        expect(await scopes('ops-long-*'), what).toEqual([scope]);
      };

      let last = await mainPid();
      await on.ok('systemctl', 'restart', UNIT);
      await after('restart', last);

      last = await mainPid();
      await on.ok('kill', '-KILL', last);
      await after('kill', last);

      // A message a second, and a kill after three without.
      await dropIn('RestartSec=1\nWatchdogSec=3s\nLimitNOFILE=1024:4096\n');
      last = await mainPid();
      await on.ok('systemctl', 'restart', UNIT);
      await after('with a watchdog', last);
      last = await mainPid();
      await on.ok('kill', '-STOP', last);
      await after('hang', last);
      expect(await on.journal(UNIT)).toContainEqual(expect.stringContaining("Failed with result 'watchdog'"));
      await dropIn('RestartSec=1\nLimitNOFILE=1024:4096\n');

      last = await mainPid();
      const said = await on.ok('dpkg', '--no-triggers', '--install', next);
      expect(said).not.toMatch(/syntax|warning|failed/i);
      await after('upgrade', last);
      expect(await on.show(UNIT, 'NeedDaemonReload')).toEqual({ NeedDaemonReload: 'no' });

      run.tell();
      await becomes('long', 'good');
      await eventually(async () => expect(await scopes('ops-long-*')).toEqual([]), 30_000);
      const lines = (await on.journal(UNIT)).join('\n');
      expect(lines).not.toMatch(/left-over|remains running|crash/i);
    });

    test('an end of its scope interrupts a run, which says so and keeps its slot', async () => {
      const run = await slow('stopped');
      const [scope = ''] = await scopes('ops-stopped-*');
      await on.ok('systemctl', 'stop', scope);
      await becomes('stopped', 'failed');
      expect(await lives(run.pid)).toBe(false);
      expect(await groupOf(consul, 'slow').lastRun('web01')).toMatchObject({ outcome: 'interrupted' });
      await runlock(consul, ['release', 'web01', '--group', 'slow', '--yes']);
    });

    test('what a run leaves running stays in that run’s scope, and the next run has another', async () => {
      const state = (value: string) => runlock(consul, ['state', 'set', 'web/x', value]);
      for (const [value, count] of [['1', 1] as const, ['2', 2] as const]) {
        await state(value);
        await eventually(() => expect(on.note('leaves.out').match(/^0::/gm)).toHaveLength(count), 30_000);
      }
      const found = [
        ...on
          .note('leaves.out')
          .matchAll(/^0::\/system\.slice\/(runlock-triggers-leaves-[0-9a-f]{8}\.scope)/gm),
      ];
      expect(new Set(found.map(([, scope]) => scope)).size).toBe(2);
      expect(await scopes('triggers-leaves-*')).toHaveLength(2);
      expect(await on.ok('sh', '-c', `cat /sys/fs/cgroup/system.slice/${UNIT}/cgroup.procs`)).toBe(
        `${await mainPid()}\n`,
      );
    });

    test('where systemd makes no scope, the agent says so, and the run begins without one', async () => {
      const broken = "#!/bin/sh\necho 'Failed to start transient scope unit: no' >&2\nexit 1\n";
      await on.ok('mv', '/usr/bin/systemd-run', '/usr/bin/systemd-run.away');
      onTestFinished(async () => {
        await on.ok('mv', '/usr/bin/systemd-run.away', '/usr/bin/systemd-run');
      });
      await machine.write('/usr/bin/systemd-run', broken);
      await on.ok('chmod', '755', '/usr/bin/systemd-run');
      const run = await slow('bare');
      const last = await mainPid();
      await on.ok('systemctl', 'restart', UNIT);
      await replaced(last);
      expect(await lives(run.pid)).toBe(true);
      run.tell();
      await becomes('bare', 'good');
      expect(on.note('bare.cgroup')).toContain(`0::/system.slice/${UNIT}/runlock-`);
      expect(await on.journal(UNIT)).toContainEqual(
        expect.stringContaining('Failed to start transient scope unit: no'),
      );
    });

    test('after a reboot the agent comes back, and the run that asked for it is good', async () => {
      await start('reboots', 'asked');
      await becomes('asked', 'rebooting');
      await machine.reboot();
      await registered();
      await becomes('asked', 'good');
    });

    test('a reboot in the middle of a run interrupts it, which it still can say', async () => {
      await slow('cut');
      await machine.reboot();
      await registered();
      await becomes('cut', 'failed');
      expect(await groupOf(consul, 'slow').lastRun('web01')).toMatchObject({ outcome: 'interrupted' });
      expect(await groupOf(consul, 'slow').claim()).toMatchObject({ state: 'interrupted', node: 'web01' });
    });

    test('a purge stops the agent, ends no run, and leaves nothing that it does not name', async () => {
      const run = await slow('last');
      const said = await on.ok('dpkg', '--no-triggers', '--purge', 'runlock');
      expect(said).toContain('Removed /etc/runlock/token.');
      expect(said).toContain("directory '/etc/runlock' not empty so not removed");
      expect(said).not.toMatch(/syntax|failed/i);
      expect((await machine.run('systemctl', 'is-active', UNIT)).said).toBe('inactive\n');
      expect(await lives(run.pid)).toBe(true);
      run.tell();
      await becomes('last', 'good');
      const left = await on.ok(
        ...['sh', '-c', 'find /etc /usr /var /run -xdev -name "*runlock*" ! -name "runlock-test*" | sort'],
      );
      // The operator's own files, as dpkg says, and the locks of this boot.
      expect(left.trim().split('\n')).toEqual([
        '/etc/runlock',
        `/etc/systemd/system/${UNIT}.d`,
        '/run/runlock',
      ]);
    });
  },
);
