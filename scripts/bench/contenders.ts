/** Who is measured: the same command under each one's lock. */
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { execa } from 'execa';
import { startAgent } from '../../test/support/consul.ts';
import type { Agent } from '../../test/support/consul.ts';
import { consulBinary } from '../../test/support/provision.ts';

/** The single file, unless another program is named. */
export const RUNLOCK = resolve(process.env['RUNLOCK_BIN'] ?? `build/binary/runlock-linux-${process.arch}`);
/** What npm installs. */
export const NPM = resolve('bin/runlock.js');

/** Another runlock, measured in turn with this one: whether a change made it slower. */
export const BEFORE = process.env['RUNLOCK_BEFORE'] && resolve(process.env['RUNLOCK_BEFORE']);

export type Name = 'runlock' | 'runlock before' | 'consul lock' | 'flock';
export const NAMES: readonly Name[] = [
  'runlock',
  ...(BEFORE ? (['runlock before'] as const) : []),
  'consul lock',
  'flock',
];

export interface Contender {
  /** The words that run `command` under the lock, on behalf of the node. */
  wrap(lock: string, node: string, command: readonly string[]): string[];
  /** Resolves when so many wait for a lock that somebody has. */
  untilWaiting(lock: string, count: number): Promise<void>;
}

export interface Ring {
  readonly contenders: Readonly<Record<Name, Contender>>;
  /** All that the processes get for an environment. */
  readonly env: Readonly<Record<string, string>>;
  readonly folder: string;
}

/** Consul lets one address have 200 connections; a hundred waiting processes have more. */
const MANY = { limits: { http_max_conns_per_client: 2_000 } };

/** One agent for all of them, and a folder, as long as `use` takes. */
export async function withRing<T>(use: (ring: Ring) => Promise<T>): Promise<T> {
  const binary = await consulBinary();
  const agent = await startAgent({ name: 'bench', config: MANY });
  const folder = mkdtempSync(join(tmpdir(), 'runlock-bench-'));
  const remove = () => rmSync(folder, { recursive: true, force: true });
  process.once('exit', remove);
  const { PATH = '', HOME = '' } = process.env;
  try {
    return await use({
      contenders: {
        runlock: runlock(agent, RUNLOCK),
        'runlock before': runlock(agent, BEFORE || RUNLOCK),
        'consul lock': consulLock(agent, binary),
        flock: flock(folder),
      },
      // In this locale bash notes times with a decimal point.
      env: { PATH, HOME, LC_ALL: 'C', ...agent.env },
      folder,
    });
  } finally {
    await agent[Symbol.asyncDispose]();
    process.off('exit', remove);
    remove();
  }
}

const runlock = (agent: Agent, program: string): Contender => ({
  wrap: (lock, node, command) => [program, 'exec', '-g', lock, '--node', node, '--', ...command],
  // With the ticket the place in the queue is certain.
  untilWaiting: (lock, count) =>
    watch(agent, `/v1/kv/runlock/${lock}/.queue/?keys`, (keys) => keys.length === count),
});

const consulLock = (agent: Agent, binary: string): Contender => ({
  // Without the shell that it starts by default: the others start none.
  wrap: (lock, _node, command) => [binary, 'lock', '-shell=false', `-name=${lock}`, lock, ...command],
  // Making its session is the last that it does before it waits. The holder has one too.
  untilWaiting: (lock, count) =>
    watch(agent, '/v1/session/list?', (sessions) => {
      const own = (sessions as { Name: string }[]).filter(({ Name }) => Name === lock);
      return own.length === count + 1;
    }),
});

function flock(folder: string): Contender {
  const file = (lock: string) => join(folder, lock.replaceAll('/', '-'));
  return {
    wrap: (lock, _node, command) => {
      writeFileSync(file(lock), '', { flag: 'a' });
      return ['flock', file(lock), ...command];
    },
    untilWaiting: async (lock, count) => {
      // The kernel marks those who wait with an arrow, and can only be asked.
      const waiting = new RegExp(`-> FLOCK .*:${statSync(file(lock)).ino} `, 'g');
      while ((readFileSync('/proc/locks', 'utf8').match(waiting) ?? []).length !== count) await sleep(1);
    },
  };
}

/** Waits by Consul's own watch. */
async function watch(agent: Agent, path: string, wanted: (list: unknown[]) => boolean): Promise<void> {
  for (let index = '0'; ;) {
    const answer = await agent.http('GET', `${path}&wait=5s&index=${index}`);
    if (wanted(answer.status === 404 ? [] : (answer.json() as unknown[]))) return;
    index = String(answer.headers['x-consul-index']);
  }
}

/** By name: what each says of itself. */
export async function versions(): Promise<Record<string, string>> {
  const first = async (file: string, arg: string) => (await execa(file, [arg])).stdout.split('\n')[0] ?? '';
  return {
    runlock: await first(RUNLOCK, '--version'),
    'Node.js': process.version,
    consul: await first(await consulBinary(), 'version'),
    flock: await first('flock', '--version'),
  };
}
