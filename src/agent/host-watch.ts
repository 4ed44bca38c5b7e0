/** Follows what the host's own files say: the tasks, and whether an operator paused the agent. */
import { reasonOf } from '../errors.ts';
import type { Deps } from '../platform/deps.ts';
import { watchFolder } from './folder-watch.ts';
import type { Known, TaskFiles } from './known.ts';
import type { Pause, StateFolder } from './state-folder.ts';
import { changing } from './watched.ts';
import type { Changing } from './watched.ts';

export interface HostEffects {
  readonly deps: Deps;
  readonly state: StateFolder;
  readonly tasksFolder: string;
  readonly hooksFolder: string;
  /** Reads all task files. @throws RunlockError `config`: their folder can't be trusted. */
  readonly readFiles: () => Promise<TaskFiles>;
}

export interface HostWatch {
  readonly known: Changing<Known>;
  /** Reads the task files anew, and returns what they say now. Never rejects. */
  refresh(): Promise<TaskFiles>;
  /** Until `signal` aborts; never rejects. */
  run(signal: AbortSignal): Promise<void>;
}

export async function watchHost(effects: HostEffects): Promise<HostWatch> {
  const { deps, state, tasksFolder, hooksFolder } = effects;
  const known = changing<Known>({
    place: { kind: 'away', why: 'starting' },
    files: await readAll(effects),
    pause: pauseIn(state),
    serving: { kind: 'unknown' },
    failing: {},
  });
  tellFiles(deps, known.look().value.files);
  tellPause(deps, known.look().value.pause);
  const refresh = async () => {
    const files = await readAll(effects);
    const { value } = known.look();
    if (isSame(files, value.files)) return files;
    known.set({ ...value, files });
    tellFiles(deps, files);
    return files;
  };
  const lookAtPause = () => {
    const pause = pauseIn(state);
    const { value } = known.look();
    if (isSame(pause, value.pause)) return;
    known.set({ ...value, pause });
    tellPause(deps, pause);
    if (!pause) deps.emit({ event: 'agent-resumed' });
  };
  return {
    known,
    refresh,
    run: async (signal) => {
      const { clock } = deps;
      await Promise.all([
        watchFolder(
          clock,
          { folder: tasksFolder, changed: () => void refresh(), settleMs: SETTLE_MS },
          signal,
        ),
        watchFolder(
          clock,
          { folder: hooksFolder, changed: () => void refresh(), settleMs: SETTLE_MS },
          signal,
        ),
        watchFolder(clock, { folder: state.path, changed: lookAtPause, settleMs: 0 }, signal),
      ]);
    },
  };
}

/** Editors write a file in several steps. */
const SETTLE_MS = 200;

const isSame = (a: unknown, b: unknown) => JSON.stringify(a) === JSON.stringify(b);

/** A folder that can't be trusted has no tasks; why is a fault of its own. */
async function readAll({ readFiles }: HostEffects): Promise<TaskFiles> {
  try {
    return await readFiles();
  } catch (error) {
    return { tasks: [], faults: [reasonOf(error)] };
  }
}

/** A file that can't be read or trusted pauses too: somebody meant to stop this agent. */
function pauseIn(state: StateFolder): Pause | undefined {
  try {
    return state.paused();
  } catch (error) {
    return { since: new Date(0).toISOString(), by: 'unknown', reason: reasonOf(error) };
  }
}

function tellFiles({ emit }: Deps, { tasks, faults }: TaskFiles): void {
  emit({ event: 'agent-tasks', tasks: tasks.map(({ task }) => task.name), faults });
}

function tellPause({ emit }: Deps, pause: Pause | undefined): void {
  if (!pause) return;
  const { by, reason } = pause;
  emit({ event: 'agent-paused', by, ...(reason !== undefined && { reason }) });
}
