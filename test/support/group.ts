// One group under test: what nearly every scene does with it, and looks at.
import { writeFileSync } from 'node:fs';
import { expect } from 'vitest';
import type { Agent } from './consul.ts';
import { eventually } from './processes.ts';
import type { Result, Running, StartOptions } from './program.ts';
import { startRunlock } from './runlock.ts';
import { stage } from './stage.ts';

/** Of every run in the group. */
export interface Always extends StartOptions {
  /** Options of `exec`. */
  readonly args?: readonly string[];
}

export interface Ticket {
  readonly node: string;
  readonly session: string;
}

/** A run that has a slot until it is told. */
export interface Holder extends Running {
  /** Its command's process id. */
  readonly command: number;
  /** Where the command is. */
  readonly folder: string;
  /** Lets the command end, with 0. */
  readonly tell: () => void;
  /** The same, and waits for a good end, of which nothing was said. */
  readonly end: () => Promise<void>;
}

/** A claim, or the record of a run, as it stands in Consul. */
export interface Stored {
  readonly node: string;
  readonly run: string;
  readonly state?: string;
  readonly [field: string]: unknown;
}

let count = 0;

/** The group `name`; unless given, one of the test's own. Words that follow a node are options, or `--` and a command. */
export function groupOf(
  agent: Agent,
  name = `group/${(count += 1)}`,
  { args = [], ...options }: Always = {},
) {
  const key = (path = '') => `runlock/${name}/${path}`;
  const read = async (path: string): Promise<Stored | undefined> => {
    const pair = await agent.kv.get(key(path));
    return pair && (JSON.parse(pair.Value) as Stored);
  };
  const words = (node: string, ...more: string[]) => ['exec', '-g', name, '--node', node, ...args, ...more];
  const start = (node: string, ...more: string[]): Running =>
    startRunlock(agent, words(node, ...more), options);
  const tickets = async (): Promise<Ticket[]> =>
    (await agent.kv.tree(key('.queue/')))
      .sort((a, b) => a.CreateIndex - b.CreateIndex)
      .map(({ Value, Session = '' }) => ({ node: (JSON.parse(Value) as Ticket).node, session: Session }));
  return {
    ...{ name, key, words, start, tickets },
    exec: (node: string, ...more: string[]): Promise<Result> => start(node, ...more).ended,
    /** Resolves when the command runs. */
    hold: async (node = 'web01', ...more: string[]): Promise<Holder> => {
      const { folder, pid } = stage();
      const script = `echo $$ >${folder}/command.pid; until [ -e ${folder}/end ]; do sleep 0.05; done`;
      const run = start(node, ...more, '--', 'sh', '-c', script);
      const tell = () => writeFileSync(`${folder}/end`, '');
      const end = async () => {
        tell();
        expect(await run.ended).toEqual({ status: 0, stdout: '', stderr: '' });
      };
      return { ...run, folder, command: await pid('command'), tell, end };
    },
    /** Of a slot; undefined when there is none. */
    claim: (slot = 0) => read(`.slot/${slot}/owner`),
    /** The session that has the slot's lock. */
    lockedBy: async (slot = 0) => (await agent.kv.get(key(`.slot/${slot}/lock`)))?.Session,
    /** What is stored of the node's last run. */
    lastRun: (node: string) => read(`.runs/${node}`),
    /** The tickets in their order, once there are so many. */
    waiting: (many = 1): Promise<Ticket[]> =>
      eventually(async () => {
        const found = await tickets();
        expect(found).toHaveLength(many);
        return found;
      }, 30_000),
    /** As `runlock freeze` stores it; `since` is now, unless given. */
    freeze: (by: string, reason: string, times: { readonly since?: string; readonly until?: string } = {}) =>
      agent.kv.put(
        key('.freeze'),
        JSON.stringify({ v: 1, by, reason, since: new Date().toISOString(), ...times }),
      ),
    /** By their names in the group. */
    keys: async (below = '') => (await agent.kv.keys(key(below))).map((one) => one.slice(key().length)),
    /** Those that runs of the group have in Consul. */
    sessions: async () => {
      const all = (await agent.http('GET', '/v1/session/list')).json() as { ID: string; Name: string }[];
      return all.filter(({ Name }) => Name === `runlock ${name}`).map(({ ID }) => ID);
    },
  };
}
