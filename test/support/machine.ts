// A machine of its own for one test file: the host's systemd runs as process 1 in its own namespaces, on a copy of the
// host's root. What is installed and started there is gone with it. It needs root, and a systemd that is installed.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { execa } from 'execa';
import { eventually, scene } from './processes.ts';

export interface Outcome {
  readonly status: number;
  /** Both of its outputs. */
  readonly said: string;
}

export interface Machine {
  /** A folder that both sides see. */
  readonly folder: string;
  /** Runs a command in there, to its end. */
  readonly run: (...command: string[]) => Promise<Outcome>;
  /** Writes a file in there, and the folders that it needs. */
  readonly write: (path: string, text: string) => Promise<void>;
  /** As an operator reboots it; resolves when it is up again, under another boot id, with all that was on its disk. */
  readonly reboot: () => Promise<void>;
  readonly stop: () => Promise<void>;
}

/** Why there can be no such machine here; undefined: there can. */
export async function whyNoMachine(): Promise<string | undefined> {
  if (process.getuid?.() !== 0) return 'only root can boot systemd in namespaces of its own';
  if (!existsSync('/usr/lib/systemd/systemd')) return 'systemd is not installed on this machine';
  const probe = `set -e; mount --make-rprivate /
    mount -t cgroup2 cgroup2 /mnt; mkdir /mnt/runlock-probe-$$; rmdir /mnt/runlock-probe-$$
    mount -t tmpfs tmpfs /mnt; cd /mnt; mkdir upper work root; mount -t overlay overlay -o lowerdir=/,upperdir=upper,workdir=work root`;
  return execa('unshare', ['--mount', '--pid', '--fork', '--cgroup', 'sh', '-c', probe]).then(
    () => undefined,
    (error: unknown) => `no namespaces, control groups or overlays to be had: ${String(error)}`,
  );
}

export async function bootMachine(): Promise<Machine> {
  const made = scene();
  // Mounts of its own: the host's view stays as it is, also after a kill.
  const words = ['--mount', 'sh', resolve('test/support/machine.sh'), made.folder, resolve('.')];
  const child = spawn('unshare', words, {
    stdio: ['pipe', 'ignore', 'pipe'],
    detached: true,
  });
  let complaints = '';
  child.stderr.setEncoding('utf8').on('data', (text: string) => (complaints += text));
  child.stdin.on('error', () => undefined);
  const ended = once(child, 'close');
  const stop = async () => {
    child.stdin.end();
    await ended;
    made.clean();
  };
  try {
    let init = 0;
    const { run, write } = inside(() => init);
    const up = async () => {
      init = await eventually(() => {
        if (child.exitCode !== null)
          throw new Error(`the machine ended with ${child.exitCode}: ${complaints}`);
        return processOne(child.pid ?? 0, init);
      }, 30_000);
      await eventually(async () => {
        const { said } = await run('systemctl', 'is-active', 'machine.target', 'systemd-journald.service');
        if (said !== 'active\nactive\n') throw new Error(`the machine is not up: ${said}${complaints}`);
      }, 60_000);
    };
    const reboot = async () => {
      // It ends with the machine, and may not be told how.
      await run('systemctl', 'reboot');
      await up();
    };
    await up();
    return { folder: made.folder, run, write, reboot, stop };
  } catch (error) {
    await stop();
    throw error;
  }
}

/** Its process 1, as the host numbers it: below the shell there is unshare, and below that systemd. @param last that of the last boot. */
function processOne(shell: number, last: number): number {
  const below = (pid: number) =>
    readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim().split(' ').filter(Boolean).map(Number);
  const found = below(shell)
    .flatMap(below)
    .find((pid) => pid !== last && readFileSync(`/proc/${pid}/comm`, 'utf8') === 'systemd\n');
  if (found === undefined) throw new Error('systemd has not started');
  return found;
}

function inside(init: () => number): Pick<Machine, 'run' | 'write'> {
  const enter = () => ['--target', String(init()), '--mount', '--uts', '--ipc', '--pid', '--cgroup', '--'];
  const env = { PATH: '/usr/sbin:/usr/bin:/sbin:/bin', LC_ALL: 'C', DEBIAN_FRONTEND: 'noninteractive' };
  const options = { env, extendEnv: false, cwd: '/', timeout: 50_000, stripFinalNewline: false } as const;
  const call = async (command: readonly string[]): Promise<Outcome> => {
    const done = await execa('nsenter', [...enter(), ...command], { ...options, reject: false });
    return { status: done.exitCode ?? -1, said: done.stdout + done.stderr };
  };
  return {
    run: (...command) => call(command),
    write: async (path, text) => {
      const script = 'mkdir -p "$(dirname "$1")" && printf %s "$2" >"$1"';
      const { status, said } = await call(['sh', '-c', script, 'sh', path, text]);
      if (status !== 0) throw new Error(`${path}: ${said}`);
    },
  };
}
