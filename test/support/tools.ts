// Real ansible-playbook and puppet for one test, with folders of their own instead of the user's.
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { execa } from 'execa';
import { onTestFinished } from 'vitest';
import { markedPids } from '../../src/process/process-tree.ts';
import type { Agent } from './consul.ts';
import { groupOf } from './group.ts';
import { end, scene } from './processes.ts';
import type { Scene } from './processes.ts';
import { NO_CONFIG } from './program.ts';
import { ansible, puppet } from './provision.ts';

export interface Toolbox extends Scene {
  readonly env: Readonly<Record<string, string>>;
  /** Writes a file into the folder: its path. */
  readonly write: (name: string, text: string, mode?: number) => string;
  /** The command line of ansible-playbook against this machine alone, called `localhost`. */
  readonly ansiblePlaybook: (...args: string[]) => Promise<string[]>;
  /** The command line of `puppet apply`. */
  readonly puppetApply: (...args: string[]) => Promise<string[]>;
}

/** Debian's own defaults of these lie outside vardir. */
const puppetSettings = `[main]
codedir = $confdir/code
ssldir = $vardir/ssl
publicdir = $vardir/public
rundir = $vardir/run
logdir = $vardir/log
`;

export function toolbox(): Toolbox {
  const made = scene();
  onTestFinished(() => made.clean());
  const { folder } = made;
  const write = (name: string, text: string, mode = 0o644) => {
    writeFileSync(join(folder, name), text, { mode });
    return join(folder, name);
  };
  write('puppet.conf', puppetSettings);
  const env = {
    ANSIBLE_CONFIG: write('ansible.cfg', '[defaults]\n'),
    ANSIBLE_HOME: join(folder, 'ansible'),
    ANSIBLE_LOCAL_TEMP: join(folder, 'ansible-local'),
    ANSIBLE_REMOTE_TEMP: join(folder, 'ansible-remote'),
  };
  const puppetFolders = ['--confdir', folder, '--vardir', join(folder, 'var')];
  return {
    ...made,
    env,
    write,
    ansiblePlaybook: async (...args) => [(await ansible()).command, '-i', 'localhost,', ...args],
    puppetApply: async (...args) => [(await puppet()).command, 'apply', ...puppetFolders, ...args],
  };
}

/** A playbook of one play on this machine; JSON is YAML too. */
export function playbook(tasks: readonly object[], more: object = {}): string {
  const play = { hosts: 'all', connection: 'local', gather_facts: false, ...more, tasks };
  return JSON.stringify([play]);
}

/** The processes of the run that has slot 0 now. They die with the test. */
export async function treeOf(agent: Agent, group: string): Promise<number[]> {
  const run = (await groupOf(agent, group).claim())?.run;
  if (run === undefined) throw new Error(`nobody runs in ${group}`);
  onTestFinished(() => markedPids(run).forEach(end));
  return markedPids(run);
}

/** The process group of a live process. */
export function processGroup(pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
  return Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[2]);
}

/** A command that prints who of `pids` is alive when it starts. */
export function whoLives(pids: readonly number[]): string[] {
  const script =
    'for pid; do grep -qs "^State:[[:space:]]*[^[:space:]ZX]" /proc/$pid/status && echo $pid; done; :';
  return ['sh', '-c', script, 'sh', ...pids.map(String)];
}

export interface Bytes {
  readonly status: number;
  readonly stdout: Buffer;
  readonly stderr: Buffer;
}

/** Runs any command line as a shell would, with `stdin` as a file, and keeps its output as it is. */
export async function runPlain(
  command: readonly string[],
  { env, stdin = '/dev/null' }: { env: Readonly<Record<string, string>>; stdin?: string },
): Promise<Bytes> {
  const { PATH = '', HOME = '' } = process.env;
  const done = await execa('sh', ['-c', 'exec "$@" <"$STDIN"', 'sh', ...command], {
    env: { PATH, HOME, ...NO_CONFIG, ...env, STDIN: stdin },
    ...{ extendEnv: false, stdin: 'ignore', encoding: 'buffer', stripFinalNewline: false, reject: false },
  });
  return {
    status: done.exitCode ?? -1,
    stdout: Buffer.from(done.stdout),
    stderr: Buffer.from(done.stderr),
  };
}
