/** `runlock agent`: runs the agent of this node, or tells it something. */
import type { Asked, Defining } from '../../cli/command.ts';
import type { RequestsChoice } from '../../agent/serving.ts';
import { checkFolders, checkIsFolder } from '../../agent/own-folders.ts';
import { openStateFolder } from '../../agent/state-folder.ts';
import { systemAuthorities } from '../../consul/authorities.ts';
import { assertNever } from '../../errors.ts';
import type { Platform } from '../platform.ts';
import { print } from '../print.ts';
import { openLog, withWays } from '../with-consul.ts';
import { statusOf, statusReport, statusText } from './status.ts';
import { taskFiles } from './task-files.ts';

export type AgentAction =
  | { readonly action: 'run' | 'resume' | 'status' }
  | { readonly action: 'pause'; readonly reason?: string }
  | { readonly action: 'reset'; readonly task: string };

export type AgentOptions = AgentAction & {
  readonly prefix: string;
  readonly node?: string;
  readonly tasksDir: string;
  readonly hooksDir: string;
  readonly logDir: string;
  readonly stateDir: string;
  readonly requests: RequestsChoice;
  /** Of the session, in milliseconds. */
  readonly ttlMs: number;
  readonly json: boolean;
  /** As given on the command line. */
  readonly config?: string;
  readonly defining: Defining;
};

const EXIT_NOT_THERE = 1;

export async function run(asked: Asked<AgentOptions>, platform: Platform): Promise<number> {
  const { common, options } = asked;
  const { action, json } = options;
  if (action === 'run') return runAgentHere(asked, platform);
  openLog(platform, common);
  checkIsFolder('--state-dir', options.stateDir);
  const state = openStateFolder(options.stateDir, platform);
  const answer = async (text: string) => {
    await print(platform, { json: false, data: {}, text: () => `${text}\n`, isProse: true });
    return 0;
  };
  switch (action) {
    case 'pause': {
      const { reason } = options;
      const since = new Date(platform.deps.clock.now()).toISOString();
      state.pause({ since, by: platform.operator(), ...(reason !== undefined && { reason }) });
      return answer("paused: the agent starts no runs until 'runlock agent resume'; active runs continue");
    }
    case 'resume':
      return answer(state.resume() ? 'resumed' : 'it was not paused');
    case 'reset':
      state.askReset(options.task);
      return answer(`the triggers of ${options.task} will be reset`);
    case 'status': {
      const nowMs = platform.deps.clock.now();
      const status = statusOf(state, platform.deps.host, nowMs);
      await print(platform, {
        json,
        data: statusReport(status),
        text: () => statusText(status, nowMs),
        isProse: true,
      });
      return status.isRegistered ? 0 : EXIT_NOT_THERE;
    }
    default:
      return assertNever(action);
  }
}

async function runAgentHere({ common, options }: Asked<AgentOptions>, platform: Platform): Promise<number> {
  const stopped = new AbortController();
  let reload = (): void => undefined;
  let stoppedBy = '';
  // Listen first, so that an early signal does not kill the process.
  platform.listenToSignals().listen((name) => {
    if (name === 'SIGHUP') reload();
    if (name !== 'SIGTERM' && name !== 'SIGINT') return;
    stoppedBy ||= name;
    stopped.abort();
  });
  checkFolders(options, platform);
  return withWays({ common: { ...common, isTalkative: true } }, platform, async ({ deps, connect }) => {
    stopped.signal.addEventListener('abort', () => deps.emit({ event: 'agent-stops', signal: stoppedBy }));
    const [{ runAgent }, { watchHost }, { serviceManager }, { openRuns }, { takeOwnLimit }, consul] =
      await Promise.all([
        import('../../agent/agent.ts'),
        import('../../agent/host-watch.ts'),
        import('../../agent/service-manager.ts'),
        import('../../agent/runs.ts'),
        import('../../agent/open-files.ts'),
        connect(),
      ]);
    await takeOwnLimit(platform.env);
    const { tasksDir, hooksDir, stateDir, defining } = options;
    const state = openStateFolder(stateDir, platform);
    const readFiles = taskFiles({ folder: tasksDir, hooksFolder: hooksDir, uid: platform.uid, defining });
    const host = await watchHost({ deps, state, tasksFolder: tasksDir, hooksFolder: hooksDir, readFiles });
    reload = () => void host.refresh();
    const manager = serviceManager(platform.env, deps.clock);
    const request = { ...options, version: platform.version };
    const { clock, emit, host: machine } = deps;
    const { env, uid, newRunId: newMark } = platform;
    const self = platform.self();
    const flags = flagsOf({ common, options });
    const folders = { stateFolder: stateDir, logFolder: options.logDir };
    const runs = { ...folders, clock, emit, host: machine, self, env, uid, flags, newMark };
    const authorities = () => systemAuthorities(env);
    const posting = { uid, version: platform.version, authorities, newId: newMark };
    const effects = { consul, deps, host, state, manager, openRuns: openRuns.bind(null, runs), posting };
    await runAgent(effects, request, stopped.signal);
    return 0;
  });
}

/** What the runs are told as well: in the environment they have it already. */
function flagsOf({ common, options }: Asked<AgentOptions>): readonly string[] {
  const { verbose, quiet, logFormat } = common;
  return [
    ...['--tasks-dir', options.tasksDir, '--log-format', logFormat],
    ...(verbose ? ['--verbose'] : []),
    ...(quiet ? ['--quiet'] : []),
    ...(options.config === undefined ? [] : ['--config', options.config]),
  ];
}
