// The part of `npm start` with agents: a job on one node publishes a state, and the agent of another starts a task by it.
import { mkdirSync, readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { startTime } from '../src/process/process-tree.ts';

const TASKS = {
  db01: `# /etc/runlock/tasks.d/migrate.toml on db01
command = ["/bin/sh", "-c", "echo migrating; sleep 1"]
group = "prod/db"
allow = ["ops"]
publish = ["db/schema=42"]
`,
  web01: `# /etc/runlock/tasks.d/reload.toml on web01
command = ["/bin/sh", "-c", "echo reloading; sleep 1"]
group = "prod/app"
on = ["state:db/schema"]
`,
};

export const NODES = ['db01', 'web01'] as const;
export type AgentNode = (typeof NODES)[number];

const folderOf = (folder: string, node: AgentNode) => join(folder, 'nodes', node);

/** Writes the node's task, and returns its file's text and the settings of its agent. */
export function setUpNode(folder: string, node: AgentNode) {
  const own = folderOf(folder, node);
  const [tasks, state, logs] = ['tasks.d', 'state', 'log'].map((name) => join(own, name)) as [
    string,
    string,
    string,
  ];
  for (const each of [tasks, state, logs]) mkdirSync(each, { recursive: true, mode: 0o755 });
  writeFileSync(join(tasks, node === 'db01' ? 'migrate.toml' : 'reload.toml'), TASKS[node], { mode: 0o600 });
  const settings = {
    RUNLOCK_TASKS_DIR: tasks,
    RUNLOCK_STATE_DIR: state,
    RUNLOCK_LOG_DIR: logs,
    RUNLOCK_HOOKS_DIR: join(own, 'hooks.d'),
  };
  return { task: TASKS[node].trimEnd(), settings };
}

/** How long a run may take to end its command, in milliseconds. */
const PATIENCE_MS = 10_000;

/** Ends what agents have started, and have left running, as they do. Their agents have ended. */
export async function endTheirRuns(folder: string): Promise<void> {
  await Promise.all(NODES.flatMap((node) => notesIn(join(folderOf(folder, node), 'state/runs'))).map(endRun));
}

async function endRun(file: string): Promise<void> {
  const { process: run } = JSON.parse(readFileSync(file, 'utf8')) as {
    process?: { pid: number; startTime: string };
  };
  if (!run) return;
  const isAlive = () => startTime(run.pid) === run.startTime;
  for (const signal of ['SIGTERM', 'SIGKILL'] as const) {
    if (isAlive()) process.kill(run.pid, signal);
    for (const untilMs = performance.now() + PATIENCE_MS; isAlive() && performance.now() < untilMs;)
      await sleep(50);
  }
}

function notesIn(folder: string): readonly string[] {
  try {
    const files = readdirSync(folder, { recursive: true, encoding: 'utf8' });
    return files.filter((name) => name.endsWith('.json')).map((name) => join(folder, name));
  } catch {
    return [];
  }
}
