/** `runlock task`: lists, shows, and runs this node's tasks. */
import type { Asked, Defining } from '../../cli/command.ts';
import { RunlockError } from '../../errors.ts';
import { renderTask, renderTasks } from '../../output/tasks.ts';
import { groupsOf } from '../../agent/task/announce.ts';
import type { Task } from '../../agent/task/definition.ts';
import { digestOf } from '../../agent/task/digest.ts';
import type { Digested } from '../../agent/task/digest.ts';
import { fill, fillNoop } from '../../agent/task/parameters.ts';
import { jobGroup, jobText } from '../../jobs/keys.ts';
import type { Platform } from '../platform.ts';
import { print } from '../print.ts';
import { openLog } from '../with-consul.ts';
import { MOST_RUNNING } from '../../jobs/records.ts';
import type { TriggerChoice } from '../../jobs/trigger.ts';
import type { ExecAsked } from '../exec/run.ts';
import { prepare } from './prepare.ts';
import type { OfJob } from './job-option.ts';
import { readTask, readTasks } from './tasks.ts';
import type { Folder } from './tasks.ts';
import { viewOf } from './view.ts';

export type TaskRequest =
  /** `node`: of another node, as its agent says. */
  | { readonly action: 'list'; readonly node?: string }
  | { readonly action: 'show'; readonly name: string }
  | {
      readonly action: 'run';
      readonly name: string;
      readonly params: ReadonlyMap<string, string>;
      /** A change asks for it, says the node's agent. */
      readonly triggered: boolean;
      /** Of `exec`, as on the command line. */
      readonly flags: readonly string[];
      /** Undefined: the run is for no job. */
      readonly job?: OfJob;
    };

export type TaskOptions = TaskRequest & {
  readonly json: boolean;
  /** Of the keys of agents. */
  readonly prefix: string;
  readonly folder: string;
  readonly defining: Defining;
};

const EXIT_CONFIG = 78;

export async function run({ common, options }: Asked<TaskOptions>, platform: Platform): Promise<number> {
  const { json } = options;
  const from: Folder = { folder: options.folder, uid: platform.uid, defining: options.defining };
  switch (options.action) {
    case 'list': {
      const { prefix, node } = options;
      if (node !== undefined)
        return (await import('./of-node.ts')).listOf({ common, options: { prefix, node, json } }, platform);
      openLog(platform, common);
      const { tasks, faults, isMissing } = await readTasks(from);
      const missing = isMissing && { missing: true as const };
      const data = { folder: from.folder, ...missing, tasks: tasks.map(viewOf), faults };
      await print(platform, { json, data, text: (output) => renderTasks(data, output) });
      return faults.length > 0 ? EXIT_CONFIG : 0;
    }
    case 'show': {
      openLog(platform, common);
      const data = viewOf(await readTask(from, options.name));
      await print(platform, { json, data, text: (output) => renderTask(data, output.sentenceColumns) });
      return 0;
    }
    case 'run':
      return runTask(options, from, platform);
  }
}

/** Hands the task to `exec`, in this process: what is right for a run is right for a task. */
async function runTask(
  { name, params, triggered, flags, job }: Extract<TaskRequest, { action: 'run' }>,
  from: Folder,
  platform: Platform,
): Promise<number> {
  const { task, asked } = await readTask({ ...from, flags }, name);
  const words = job?.noop ? fillNoop(task, params) : fill(task, params);
  const more = job && { RUNLOCK_JOB: jobText(job.ref) };
  const surroundings = prepare(task, words[0], { uid: from.uid, env: platform.env, ...(more && { more }) });
  const { run: runExec } = await import('../exec/run.ts');
  const [command, ...args] = words;
  const trigger = triggered && { trigger: triggerOf(task) };
  const chosen = job ? forJob(asked.options, { task, params, job }) : asked.options;
  const ran = job?.noop ? {} : { task: taskRun({ task, words, uid: from.uid }, { job, triggered }) };
  const options = { ...chosen, command, args, ...trigger, ...ran };
  return runExec({ ...asked, options, surroundings }, platform);
}

function taskRun(
  what: Digested,
  { job, triggered }: { readonly job: OfJob | undefined; readonly triggered: boolean },
) {
  const digest = digestOf(what);
  return { digest, ...(job && { job: jobText(job.ref) }), ...(triggered && ({ triggered } as const)) };
}

interface JobRunOf {
  readonly task: Task;
  readonly params: ReadonlyMap<string, string>;
  readonly job: OfJob;
}

/**
 * A run of a job whose targets take turns among themselves has a slot of the job's own as well, which nothing keeps after it.
 * One that only tries has no other: it changes nothing that anybody has to wait for, ends nobody's claim, and its record
 * is not that of a good run.
 */
function forJob(options: ExecAsked['options'], { task, params, job }: JobRunOf): ExecAsked['options'] {
  const { groups } = options;
  const [home = ''] = groupsOf(options);
  const choice = { ...job, task: task.name, params: Object.fromEntries(params), tail: task.tail, home };
  const { ref, noop, maxRunning } = job;
  if (!noop && maxRunning === undefined) return { ...options, job: choice };
  const slots = maxRunning ?? MOST_RUNNING;
  const ofJob = { group: jobGroup(home, ref), slots, hold: 'none' } as const;
  if (!noop) return { ...options, job: choice, groups: [...groups, ofJob] };
  const kept = Object.entries(options).filter(([name]) => !OF_REAL_RUNS.includes(name));
  return { ...(Object.fromEntries(kept) as unknown as ExecAsked['options']), job: choice, groups: [ofJob] };
}

/** What others see of a run, and what only a change needs. */
const OF_REAL_RUNS = ['publish', 'during', 'gate', 'metricsFile'];

function triggerOf({ name, file, trigger }: Task): TriggerChoice {
  if (trigger) return { ...trigger, task: name };
  throw new RunlockError(
    'config',
    `${file}: nothing starts this task by itself any more; it has no on = […]`,
  );
}
