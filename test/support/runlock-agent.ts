// `runlock agent` on folders of its own, and what stands in Consul of it.
import { mkdirSync, readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { onTestFinished } from 'vitest';
import { livingOf } from '../../src/agent/run-notes.ts';
import type { RunNote } from '../../src/agent/run-notes.ts';
import type { AgentDocument } from '../../src/jobs/documents.ts';
import type { Agent } from './consul.ts';
import { startTime } from '../../src/process/process-tree.ts';
import { end } from './processes.ts';
import type { Scene } from './processes.ts';
import { startRunlock } from './runlock.ts';
import { stage } from './stage.ts';

export interface AgentSetup {
  /** Task files, by name. */
  readonly tasks?: Readonly<Record<string, string>>;
  readonly env?: Readonly<Record<string, string>>;
  /** How it reaches Consul, if not directly. */
  readonly through?: Pick<Agent, 'env'>;
  /** A name in its folder under which the program is started. */
  readonly program?: string;
}

/** Ended with the test; not for tests that go on beside others. */
export function agentOn(agent: Agent, node: string, setup: AgentSetup = {}) {
  const made = agentIn({ ...stage(), start: startRunlock }, { ...setup, agent, node });
  // The runs outlive their agent, which ends before this; their guards end the commands.
  onTestFinished(() => endRuns(made.state));
  return made;
}

interface Place extends Pick<Scene, 'folder' | 'pid' | 'lines'> {
  readonly start: typeof startRunlock;
}

/** In a folder that is there, by programs that the caller ends. */
export function agentIn(
  { folder, pid, lines, start }: Place,
  {
    agent,
    node,
    tasks = {},
    env: more = {},
    through = agent,
    program,
  }: AgentSetup & { readonly agent: Agent; readonly node: string },
) {
  const at = {
    tasks: `${folder}/tasks.d`,
    hooks: `${folder}/hooks.d`,
    state: `${folder}/state`,
    logs: `${folder}/log`,
  };
  for (const each of Object.values(at)) mkdirSync(each, { mode: 0o755 });
  const write = (name: string, text: string) => writeFileSync(`${at.tasks}/${name}`, text, { mode: 0o600 });
  for (const [name, text] of Object.entries(tasks)) write(name, text);
  const env = {
    ...{ RUNLOCK_TASKS_DIR: at.tasks, RUNLOCK_STATE_DIR: at.state, RUNLOCK_LOG_DIR: at.logs },
    RUNLOCK_HOOKS_DIR: at.hooks,
    ...{ RUNLOCK_NODE: node, RUNLOCK_AGENT_SESSION_TTL: '10s' },
    ...more,
  };
  const key = `runlock/.agents/${node}`;
  return {
    ...at,
    ...{ folder, pid, lines },
    key,
    write,
    start: (...words: string[]) =>
      start(through, ['agent', ...words], {
        env,
        ...(program !== undefined && { program: `${folder}/${program}` }),
      }),
    startIn: (cwd: string, ...words: string[]) => start(through, ['agent', ...words], { env, cwd }),
    run: (...words: string[]) => start(agent, ['agent', ...words], { env }).ended,
    /** Its key; undefined: there is none, or nobody has it locked. */
    shown: async () => {
      const entry = await agent.kv.get(key);
      if (entry?.Session === undefined) return undefined;
      return JSON.parse(entry.Value) as AgentDocument;
    },
  };
}

/** SIGKILL to every process of a run that an agent with this folder has started; their guards end the commands. */
export function endRuns(stateFolder: string): void {
  const files = readdirSync(stateFolder, { recursive: true, encoding: 'utf8' });
  for (const file of files.filter((name) => /^runs\/.*\.json$/.test(name))) {
    const note = JSON.parse(readFileSync(`${stateFolder}/${file}`, 'utf8')) as RunNote;
    const pid = livingOf(note, { bootId: note.bootId, startTime });
    if (pid !== undefined) end(pid);
  }
}
