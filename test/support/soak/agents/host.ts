// The host of one node of a soak: folders, task files, a boot of its own, and all processes that it has.
import { randomUUID } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, readdirSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { livingOf } from '../../../../src/agent/run-notes.ts';
import type { RunNote } from '../../../../src/agent/run-notes.ts';
import { startTime } from '../../../../src/process/process-tree.ts';
import type { Agent } from '../../consul.ts';
import { end, eventually } from '../../processes.ts';
import { spawnRunlock } from '../../program.ts';
import type { Spawned } from '../../program.ts';
import { prepareCommands, readCommands, scriptFile } from './commands.ts';
import type { Command } from './commands.ts';
import { taskFiles } from './nodes.ts';
import type { NodePlan } from './nodes.ts';

/** In the environment of every process of a node. */
const MARK = 'SOAK_NODE';
/** In a namespace of its own the node has its own boot id, which the soak changes; only root can do that. */
const MOUNT = 'mount --bind "$0" /proc/sys/kernel/random/boot_id && exec "$@"';

export interface SoakHost {
  readonly plan: NodePlan;
  readonly folder: string;
  /** What its files say that its runs publish. */
  write(value: string): void;
  /** `runlock <args>` on this host; the node's own way to Consul unless given. */
  spawn(args: readonly string[], through?: Pick<Agent, 'env'>): Spawned;
  /** Runs that its agents have started, and that live: jobs' and triggers', waiting ones too. */
  living(): readonly LivingRun[];
  /** Everything that runs there. */
  processes(): readonly number[];
  /** Ends all of them at once; the next boot is another. */
  crash(): Promise<void>;
  commands(): readonly Command[];
  /** What is left in files that should not be: notes of runs of jobs. */
  leftFiles(): readonly string[];
  /** What runlock has said there, in its runs' logs. */
  logs(): readonly { readonly file: string; readonly text: string }[];
}

export interface LivingRun {
  /** `principal/id`, or `.triggers/task`. */
  readonly of: string;
  readonly pid: number;
}

export function createHost(root: string, plan: NodePlan, way: Pick<Agent, 'env'>): SoakHost {
  const folder = join(root, plan.name);
  const at = {
    tasks: `${folder}/tasks.d`,
    hooks: `${folder}/hooks.d`,
    state: `${folder}/state`,
    logs: `${folder}/log`,
  };
  for (const each of [...Object.values(at), `${folder}/runs`])
    mkdirSync(each, { recursive: true, mode: 0o755 });
  prepareCommands(folder);
  const boot = `${folder}/boot`;
  writeFileSync(boot, `${randomUUID()}\n`);
  const env = {
    ...{ RUNLOCK_TASKS_DIR: at.tasks, RUNLOCK_HOOKS_DIR: at.hooks, RUNLOCK_STATE_DIR: at.state },
    ...{ RUNLOCK_LOG_DIR: at.logs, RUNLOCK_NODE: plan.name, RUNLOCK_REQUESTS: 'trust-everybody' },
    ...{ RUNLOCK_AGENT_SESSION_TTL: '15s', RUNLOCK_VERBOSE: 'true', [MARK]: folder },
  };
  const write: SoakHost['write'] = (value) => {
    for (const [name, text] of taskFiles(plan, { script: scriptFile(folder), value })) {
      const draft = `${folder}/${name}.new`;
      writeFileSync(draft, `${text}env.${MARK} = "${folder}"\n`, { mode: 0o600 });
      renameSync(draft, `${at.tasks}/${name}`);
    }
  };
  write('v0');
  const processes = () => marked(folder);
  return {
    ...{ plan, folder, write, processes },
    spawn: (args, through = way) =>
      spawnRunlock(through, args, { env, through: ['unshare', '--mount', 'sh', '-c', MOUNT, boot] }),
    living: () => livingIn(`${at.state}/runs`),
    crash: async () => {
      await eventually(() => {
        const all = processes();
        all.forEach(end);
        if (all.length > 0) throw new Error(`${all.join(', ')} of ${plan.name} live on`);
      }, 30_000);
      writeFileSync(boot, `${randomUUID()}\n`);
    },
    commands: () => readCommands(folder, plan.name),
    leftFiles: () =>
      filesIn(at.state)
        // The note of a trigger's last run stays, one a task; so does what was started for which job.
        .filter((file) => /^runs\/(?!\.triggers\/)/.test(file))
        .map((file) => `${at.state}/${file}`),
    logs: () =>
      filesIn(at.logs).map((file) => ({
        file: `${at.logs}/${file}`,
        text: readFileSync(`${at.logs}/${file}`, 'utf8'),
      })),
  };
}

function filesIn(folder: string): readonly string[] {
  return readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name).slice(folder.length + 1));
}

function marked(folder: string): readonly number[] {
  const mark = Buffer.from(`${MARK}=${folder}\0`);
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map(Number)
    .filter((pid) => {
      try {
        return readFileSync(`/proc/${pid}/environ`).includes(mark);
      } catch {
        return false;
      }
    });
}

function livingIn(notes: string): readonly LivingRun[] {
  // No run has been started yet.
  const files = existsSync(notes) ? filesIn(notes) : [];
  return files.flatMap((file) => {
    try {
      const note = JSON.parse(readFileSync(join(notes, file), 'utf8')) as RunNote;
      const pid = livingOf(note, { bootId: note.bootId, startTime });
      return pid === undefined ? [] : [{ of: file.replace(/\.json$/, ''), pid }];
    } catch {
      // It was just removed.
      return [];
    }
  });
}

export function removeHosts(root: string): void {
  rmSync(root, { recursive: true, force: true, maxRetries: 10, retryDelay: 100 });
}
