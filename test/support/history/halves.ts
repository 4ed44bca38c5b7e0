// A node that uses the two halves of exec, as an event handler or a playbook does: acquire, its own work, release.
import { spawn } from 'node:child_process';
import { rmSync } from 'node:fs';
import { constants } from 'node:os';
import type { Agent } from '../consul.ts';
import { end } from '../processes.ts';
import { spawnRunlock } from '../program.ts';
import type { Result, Spawned } from '../program.ts';
import { toldFile, witness } from './witness.ts';
import type { Part } from './witness.ts';

export interface HalvesOptions {
  readonly part: Part & { readonly beats: number };
  /** The work is killed in the middle, and nothing is released. */
  readonly crash?: boolean;
  readonly agent: Pick<Agent, 'env'>;
  readonly slots: number;
  /** Never `none`: what is held has a hold. */
  readonly hold: string;
  /** More options for both halves. */
  readonly args?: readonly string[];
}

/** What its first half says as JSON. */
interface Held {
  readonly run: string;
  readonly slot: number;
  readonly fencingToken: number;
  readonly heldUntil?: string;
}

export interface Halves {
  /** Of the first half. */
  readonly acquiring: Spawned;
  /** The first half's status unless it was well, else the second's, else that of the work; all that both said. */
  readonly ended: Promise<Result>;
  readonly stderr: () => string;
  /** SIGKILL to whatever of it is alive; nothing more is started. */
  end(): void;
}

interface Place {
  readonly group: string;
  /** Where the witnesses write. */
  readonly folder: string;
}

export function startHalves(place: Place, name: string, options: HalvesOptions): Halves {
  const { group, folder } = place;
  const { agent, slots, hold, args = [] } = options;
  rmSync(toldFile(folder, name), { force: true });
  const ending = new AbortController();
  const isEnding = () => ending.signal.aborted;
  const named = [group, '--node', name, ...args];
  const first = ['-n', String(slots), '--hold', hold, '--session-ttl', '10s', '--json'];
  const acquiring = spawnRunlock(agent, ['acquire', ...named, ...first]);
  let releasing: Spawned | undefined;
  const stderr = () => acquiring.stderr() + (releasing?.stderr() ?? '');
  const go = async (): Promise<Result> => {
    const acquired = await acquiring.ended;
    if (acquired.status !== 0 || isEnding()) return acquired;
    const held = JSON.parse(acquired.stdout) as Held;
    const status = await work(place, { name, held, options, signal: ending.signal });
    if (options.crash || isEnding()) return { ...acquired, status };
    const failed = status === 0 ? [] : ['--failed', '--exit-code', String(status)];
    releasing = spawnRunlock(agent, ['release', ...named, ...failed]);
    const released = await releasing.ended;
    const worst = released.status === 0 ? status : released.status;
    return { status: worst, stdout: acquired.stdout + released.stdout, stderr: stderr() };
  };
  return {
    acquiring,
    ended: go(),
    stderr,
    end: () => {
      ending.abort();
      acquiring.end();
      releasing?.end();
    },
  };
}

interface Work {
  readonly name: string;
  readonly held: Held;
  readonly options: HalvesOptions;
  readonly signal: AbortSignal;
}

/** Half of the beats until the crash. */
const BEAT_MS = 50;

/** Its exit status. Work in a hold that ends is over before that: nobody else sees to it. */
function work({ folder }: Place, { name, held, options, signal }: Work): Promise<number> {
  const { part, crash } = options;
  const untilMs = held.heldUntil === undefined ? Infinity : Date.parse(held.heldUntil) - Date.now();
  const killMs = Math.min(crash ? (part.beats * BEAT_MS) / 2 : Infinity, untilMs);
  if (killMs <= 0) return Promise.resolve(128 + constants.signals.SIGKILL);
  const [command = 'sh', ...args] = witness(folder, part);
  const env = {
    PATH: process.env['PATH'],
    ...{ RUNLOCK_RUN_ID: held.run, RUNLOCK_RUN_NODE: name },
    ...{ RUNLOCK_RUN_SLOT: String(held.slot), RUNLOCK_FENCING_TOKEN: String(held.fencingToken) },
  };
  return new Promise((settle, fail) => {
    const child = spawn(command, args, { env, detached: true, stdio: 'ignore' });
    // Its group: a witness that sleeps has a child.
    const kill = () => end(-(child.pid ?? 0));
    const timer = Number.isFinite(killMs) ? setTimeout(kill, killMs) : undefined;
    signal.addEventListener('abort', kill);
    child.on('error', fail);
    child.on('exit', (code, by) => {
      clearTimeout(timer);
      signal.removeEventListener('abort', kill);
      settle(code ?? 128 + constants.signals[by ?? 'SIGKILL']);
    });
  });
}
