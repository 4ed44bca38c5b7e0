// The units: what systemd says of them, and what they do under a real one, installed by the real dpkg.
import { cpSync, existsSync, mkdirSync, readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { execa } from 'execa';
import { beforeAll, describe, expect, onTestFinished, test } from 'vitest';
import { endAgents, startAgent } from '../support/consul.ts';
import type { Agent } from '../support/consul.ts';
import { bootMachine, whyNoMachine } from '../support/machine.ts';
import type { Machine } from '../support/machine.ts';
import { onMachine } from '../support/on-machine.ts';
import type { OnMachine } from '../support/on-machine.ts';
import { eventually } from '../support/processes.ts';
import { RUNLOCK } from '../support/program.ts';
import { puppet, systemdAnalyze } from '../support/provision.ts';
import { stage } from '../support/stage.ts';
import { groupOf } from '../support/group.ts';

describe('systemd-analyze has nothing to say of', () => {
  const program = (root: string, path: string) => {
    mkdirSync(dirname(join(root, path)), { recursive: true });
    writeFileSync(join(root, path), '#!/bin/sh\n', { mode: 0o755 });
  };

  /** A root with these programs and units, and the targets that every unit needs. */
  function rootWith(programs: readonly string[], units: Readonly<Record<string, string>>): string {
    const { folder } = stage();
    for (const path of programs) program(folder, path);
    const targets = ['basic', 'network', 'network-online', 'shutdown', 'sysinit', 'timers', 'multi-user'];
    const all = {
      ...Object.fromEntries(
        targets.map((name) => [`usr/lib/systemd/system/${name}.target`, `[Unit]\nDescription=${name}\n`]),
      ),
      ...units,
    };
    for (const [path, text] of Object.entries(all)) {
      mkdirSync(dirname(join(folder, path)), { recursive: true });
      writeFileSync(join(folder, path), text);
    }
    return folder;
  }

  async function verify(root: string, ...units: string[]): Promise<string> {
    const args = ['verify', '--man=no', `--root=${root}`, ...units];
    const { all } = await execa(await systemdAnalyze(), args, { all: true, reject: false });
    return all;
  }

  const packaged = (name: string) => readFileSync(join('packaging/systemd', name), 'utf8');
  const example = (name: string) => readFileSync(join('examples/systemd', name), 'utf8');
  const own = 'usr/lib/systemd/system';

  test('the unit of the package lets its runs have a cgroup of their own', () => {
    expect(packaged('runlock@.service')).toMatch(/^Delegate=yes$/m);
  });

  test('the units of the package', async () => {
    const units = {
      [`${own}/runlock-agent.service`]: packaged('runlock-agent.service'),
      [`${own}/runlock@.service`]: packaged('runlock@.service'),
      [`${own}/runlock@.timer`]: packaged('runlock@.timer'),
    };
    const both = ['runlock@web.service', 'runlock@web.timer', 'runlock-agent.service'];
    const programs = ['bin/sh', 'bin/kill', 'usr/bin/runlock'];
    expect(await verify(rootWith(programs, units), ...both)).toBe('');
    // It does look: at what is not there, and at what is misspelt.
    expect(await verify(rootWith(['bin/sh'], units), ...both)).toContain(
      '/usr/bin/runlock is not executable',
    );
    const wrong = {
      ...units,
      [`${own}/runlock@.service`]: packaged('runlock@.service').replace('KillMode=', 'KilMode='),
    };
    expect(await verify(rootWith(programs, wrong), ...both)).toContain("'KilMode'");
  });

  test('the drop-in for Debian’s own puppet.service, and its timer', async () => {
    const folders = [join(dirname((await puppet()).command), '..'), '/'];
    const found = folders.flatMap((root) => [join(root, 'lib/systemd/system'), join(root, own)]);
    const unit = found.map((folder) => join(folder, 'puppet.service')).find(existsSync);
    if (unit === undefined)
      throw new Error(`no puppet.service in ${found.join(', ')}: install Debian's puppet-agent`);
    const root = rootWith(['usr/bin/puppet', 'usr/bin/runlock', 'bin/kill'], {
      [`${own}/puppet.service`]: readFileSync(unit, 'utf8'),
      'etc/systemd/system/puppet.service.d/runlock.conf': example('puppet.service.d/runlock.conf'),
      'etc/systemd/system/puppet.timer': example('puppet.timer'),
    });
    expect(await verify(root, 'puppet.service', 'puppet.timer')).toBe('');
  });

  test('the drop-in for the service that Chef’s chef_client_systemd_timer writes', async () => {
    const chef = `[Unit]
Description = Chef Infra Client periodic execution
After = network.target auditd.service

[Service]
Type = oneshot
ExecStart = /opt/chef/bin/chef-client -c /etc/chef/client.rb
SuccessExitStatus = 3
SuccessExitStatus = 213
SuccessExitStatus = 35
SuccessExitStatus = 37
SuccessExitStatus = 41

[Install]
WantedBy = multi-user.target
`;
    const root = rootWith(['opt/chef/bin/chef-client', 'usr/bin/runlock'], {
      'etc/systemd/system/chef-client.service': chef,
      'etc/systemd/system/chef-client.service.d/runlock.conf': example('chef-client.service.d/runlock.conf'),
    });
    expect(await verify(root, 'chef-client.service')).toBe('');
  });

  test('anything else: each example is tried here', () => {
    expect(readdirSync('examples/systemd').sort()).toEqual([
      ...['README.md', 'chef-client.service.d', 'puppet.service.d', 'puppet.timer'],
    ]);
  });
});

const why = await whyNoMachine();
if (why !== undefined) console.warn(`No unit runs in this file: ${why}.`);

describe.skipIf(why !== undefined)(
  `under a real systemd${why === undefined ? '' : ` (skipped: ${why})`}`,
  // Each step is quick; on a busy machine there are many of them.
  { timeout: 150_000 },
  () => {
    let machine: Machine;
    let on: OnMachine;
    let agent: Agent;
    let token: string;

    /** Each in a group of its own, unless `more` says another. */
    const instance = (name: string, command: string, more = `RUNLOCK_GROUP=prod/${name}\n`) =>
      machine.write(
        `/etc/runlock/runs.d/${name}.env`,
        `CONSUL_HTTP_ADDR=${agent.address}\n${more}RUNLOCK_COMMAND=${command}\n`,
      );
    beforeAll(async () => {
      agent = await startAgent({ acl: true, name: 'web01' });
      token = await agent.token(
        'session "web01" { policy = "write" }\nkey_prefix "runlock/" { policy = "write" }\n',
      );
      machine = await bootMachine();
      on = onMachine(machine);
      const args = [
        'scripts/run.js',
        'scripts/build-deb.ts',
        '--program',
        '/bin/true',
        '--out',
        machine.folder,
      ];
      const { stdout: deb } = await execa(process.execPath, args);
      await on.ok('dpkg', '--no-triggers', '--install', deb);
      // The program that is tested takes the place of the small one that was packed.
      const words = RUNLOCK.endsWith('.js')
        ? `"${process.execPath}" "${resolve(RUNLOCK)}"`
        : `"${resolve(RUNLOCK)}"`;
      cpSync(on.script('runlock', `exec ${words} "$@"`), join(machine.folder, 'runlock.sh'));
      await on.ok('cp', join(machine.folder, 'runlock.sh'), '/usr/bin/runlock');
      await machine.write('/etc/runlock/token', `${token}\n`);
      await on.ok('chmod', '600', '/etc/runlock/token');
      return async () => {
        await machine.stop();
        await endAgents();
      };
    }, 240_000);

    test('a timer starts what the instance’s file says, in its group, with the token for root alone', async () => {
      const facts = on.script(
        'facts',
        `{ printf '%s|' "$@"; echo; echo "$RUNLOCK_RUN_GROUP $RUNLOCK_RUN_NODE"; stat -c '%a %U' "$CONSUL_HTTP_TOKEN_FILE"
         cat "$CONSUL_HTTP_TOKEN_FILE"; echo end; } >${machine.folder}/facts.out`,
      );
      await instance('web', `${facts} one "two words" 'a "quoted" word' $HOME *`);
      await machine.write(
        '/etc/systemd/system/runlock@web.timer.d/soon.conf',
        '[Timer]\nOnCalendar=\nOnActiveSec=1s\nAccuracySec=1ms\nRandomizedDelaySec=0\n',
      );
      await on.ok('systemctl', 'daemon-reload');
      await on.ok('systemctl', 'enable', '--now', 'runlock@web.timer');
      const said = await on.noteOf('facts.out');
      expect(said).toBe(`one|two words|a "quoted" word|$HOME|*|\nprod/web web01\n400 root\n${token}\nend\n`);
      await eventually(async () => {
        expect(await groupOf(agent, 'prod/web').lastRun('web01')).toMatchObject({
          outcome: 'succeeded',
          exitCode: 0,
        });
        expect(await on.show('runlock@web.service', 'ActiveState', 'Result')).toEqual({
          ActiveState: 'inactive',
          Result: 'success',
        });
      }, 30_000);
      const lines = await on.journal('runlock@web.service');
      expect(lines).toContainEqual(expect.stringMatching(/^<6> .*web01 acquired slot 0 of prod\/web/));
      const timer = await on.show('runlock@web.timer', 'ActiveState', 'UnitFileState');
      expect(timer).toEqual({ ActiveState: 'active', UnitFileState: 'enabled' });
    });

    test('without a token’s file it runs with the token of its own file, or none', async () => {
      await on.ok('mv', '/etc/runlock/token', '/etc/runlock/token.away');
      onTestFinished(async () => {
        await on.ok('mv', '/etc/runlock/token.away', '/etc/runlock/token');
      });
      await instance('none', '/bin/true');
      expect((await machine.run('systemctl', 'start', 'runlock@none.service')).status).toBe(1);
      expect(await on.show('runlock@none.service', 'Result', 'ExecMainStatus')).toEqual({
        Result: 'exit-code',
        ExecMainStatus: '77',
      });
      await instance('own', '/bin/true', `CONSUL_HTTP_TOKEN=${token}\n`);
      await on.ok('systemctl', 'start', 'runlock@own.service');
    });

    test('an instance without a file, or a command in it, fails with one line that names the file', async () => {
      const wanted = (name: string) =>
        `<3> /etc/runlock/runs.d/${name}.env: no such file, or no RUNLOCK_COMMAND in it; see /etc/runlock/runs.d/README`;
      await machine.write('/etc/runlock/runs.d/empty.env', 'RUNLOCK_GROUP=prod/web\n');
      for (const name of ['nobody', 'empty']) {
        const unit = `runlock@${name}.service`;
        expect((await machine.run('systemctl', 'start', unit)).status).toBe(1);
        expect(await on.show(unit, 'ActiveState', 'Result')).toEqual({
          ActiveState: 'failed',
          Result: 'exit-code',
        });
        await eventually(async () => expect(await on.journal(unit)).toContain(wanted(name)), 30_000);
      }
    });

    test('a run that fails fails its unit with its own code; one that is busy does not', async () => {
      await instance('fails', `/bin/sh -c 'exit 3'`);
      expect((await machine.run('systemctl', 'start', 'runlock@fails.service')).status).toBe(1);
      expect(await on.show('runlock@fails.service', 'Result', 'ExecMainStatus')).toEqual({
        Result: 'exit-code',
        ExecMainStatus: '3',
      });
      await instance('busy', '/bin/true', 'RUNLOCK_GROUP=prod/fails\nRUNLOCK_NODE=web02\nRUNLOCK_WAIT=0\n');
      await on.ok('systemctl', 'start', 'runlock@busy.service');
      const lines = await on.journal('runlock@busy.service');
      expect(lines).toContainEqual(expect.stringMatching(/^<4> runlock: .*web01/));
      expect(lines).toContainEqual('<6> runlock@busy.service: Deactivated successfully.');
    });

    test('a stop ends the command’s whole tree, once, and its node keeps the slot', async () => {
      const stubborn = on.script(
        'stubborn',
        // After the first signal it stays a while, so that a second one would be seen.
        `asked=; trap 'asked=1; echo asked >>${machine.folder}/stubborn.out' TERM
         setsid sh -c 'echo >${machine.folder}/daemon.out; exec sleep 300' &
         until [ -s ${machine.folder}/daemon.out ]; do sleep 0.01; done
         echo started >${machine.folder}/stubborn.out
         until [ "$asked" ]; do sleep 0.05; done
         for _ in 1 2 3 4 5 6 7 8 9 10; do sleep 0.05; done
         exit 5`,
      );
      await instance('stubborn', stubborn);
      await on.ok('systemctl', 'start', '--no-block', 'runlock@stubborn.service');
      await eventually(() => expect(on.note('stubborn.out')).toBe('started\n'), 30_000);
      await on.ok('systemctl', 'stop', 'runlock@stubborn.service');
      // Once: by runlock, and not by systemd as well.
      expect(on.note('stubborn.out')).toBe('started\nasked\n');
      expect((await machine.run('pgrep', '--full', 'sleep 300')).status).toBe(1);
      expect(await groupOf(agent, 'prod/stubborn').lastRun('web01')).toMatchObject({
        outcome: 'interrupted',
      });
      expect(await groupOf(agent, 'prod/stubborn').claim()).toMatchObject({
        state: 'interrupted',
        node: 'web01',
      });
    });

    test('the command has a cgroup of its own below the unit’s, which goes with the run', async () => {
      const where = on.script(
        'where',
        `{ sed -n 's/^0:://p' /proc/self/cgroup; echo end; } >${machine.folder}/where.out`,
      );
      await instance('where', where);
      await machine.write(
        '/etc/systemd/system/runlock@where.service.d/stay.conf',
        '[Service]\nRemainAfterExit=yes\n',
      );
      await on.ok('systemctl', 'daemon-reload');
      await on.ok('systemctl', 'start', 'runlock@where.service');
      const own = '/system\\.slice/system-runlock\\.slice/runlock@where\\.service';
      expect(await on.noteOf('where.out')).toMatch(new RegExp(`^${own}/runlock-[0-9a-f-]{36}\nend\n$`));
      expect((await machine.run('sh', '-c', 'find /sys/fs/cgroup -name "runlock-*-*-*-*-*"')).said).toBe('');
    });

    test('what a run does to the host is done to the host: mounts stay, and root may do all', async () => {
      const changes = on.script(
        'changes',
        `mkdir -p /mnt/kept && mount -t tmpfs kept /mnt/kept
       { grep -E '^(NoNewPrivs|CapBnd|Seccomp_filters):' /proc/self/status; umask; echo end; } >${machine.folder}/changes.out`,
      );
      await instance('changes', changes);
      await on.ok('systemctl', 'start', 'runlock@changes.service');
      expect(await on.ok('stat', '--file-system', '--format=%T', '/mnt/kept')).toBe('tmpfs\n');
      const all = (await on.ok('grep', '-E', '^(CapBnd|Seccomp_filters):', '/proc/1/status')).trim();
      expect((await on.noteOf('changes.out')).split('\n')).toEqual(
        expect.arrayContaining([...all.split('\n'), 'NoNewPrivs:\t0', '0022']),
      );
    });

    // Puppet alone takes seconds, and on a busy machine many of them.
    test(
      'a real Puppet run works under the unit, and its code for changes can be made a success',
      { timeout: 240_000 },
      async () => {
        const manifest = join(machine.folder, 'site.pp');
        writeFileSync(
          manifest,
          `user { 'runlocktest': ensure => present, managehome => true }
         -> file { '/home/runlocktest/note': content => 'from puppet', owner => 'runlocktest', mode => '4755' }`,
        );
        const { command } = await puppet();
        const words = [command, 'apply', '--detailed-exitcodes', '--vardir', '/var/puppet-test', manifest];
        await instance('puppet', words.join(' '));
        const dropIn = '/etc/systemd/system/runlock@puppet.service.d/codes.conf';
        await machine.write(dropIn, '[Service]\nSuccessExitStatus=2\n');
        await on.ok('systemctl', 'daemon-reload');
        await on.ok('systemctl', 'start', '--no-block', 'runlock@puppet.service');
        await eventually(async () => {
          expect(await groupOf(agent, 'prod/puppet').lastRun('web01')).toMatchObject({
            outcome: 'succeeded',
            exitCode: 2,
          });
          expect(await on.journal('runlock@puppet.service')).toContain(
            '<6> runlock@puppet.service: Deactivated successfully.',
          );
        }, 200_000);
        expect(await on.ok('stat', '--format=%U %a', '/home/runlocktest/note')).toBe('runlocktest 4755\n');
        expect(await groupOf(agent, 'prod/puppet').lastRun('web01')).toMatchObject({
          outcome: 'succeeded',
          exitCode: 2,
        });
      },
    );

    test('when the package goes, no timer starts another run; one under way goes on to its end', async () => {
      const slow = on.script(
        'slow',
        `echo started >${machine.folder}/slow.out
       until [ -e ${machine.folder}/go ]; do sleep 0.05; done; echo end >>${machine.folder}/slow.out`,
      );
      await instance('slow', slow);
      await on.ok('systemctl', 'enable', '--now', 'runlock@slow.timer');
      await on.ok('systemctl', 'start', '--no-block', 'runlock@slow.service');
      await eventually(() => expect(on.note('slow.out')).toBe('started\n'), 30_000);
      await on.ok('dpkg', '--no-triggers', '--remove', 'runlock');
      expect(await on.ok('systemctl', 'list-units', '--no-legend', '--type=timer', '--state=active')).toBe(
        '',
      );
      writeFileSync(join(machine.folder, 'go'), '');
      expect(await on.noteOf('slow.out')).toBe('started\nend\n');
      await eventually(
        async () =>
          expect(await groupOf(agent, 'prod/slow').lastRun('web01')).toMatchObject({ outcome: 'succeeded' }),
        30_000,
      );
      await on.ok('dpkg', '--no-triggers', '--purge', 'runlock');
      expect((await machine.run('ls', '/etc/systemd/system/timers.target.wants')).said).not.toContain(
        'runlock@',
      );
      expect(await on.ok('ls', '/etc/runlock/runs.d')).toContain('slow.env');
    });
  },
);
