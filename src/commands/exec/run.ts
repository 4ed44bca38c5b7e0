/** `runlock exec`: its outcome → exit status and metrics file. */
import type { Asked } from '../../cli/command.ts';
import { usage, withoutOptions } from '../../cli/values.ts';
import type { ExecDeps, ExecOptions, Figures } from '../../runner/options.ts';
import { causesIn } from '../../lock/causes.ts';
import { runOf } from '../../conditions/own-run.ts';
import { containRun } from '../../process/contain.ts';
import type { Containment } from '../../process/contain.ts';
import { newRun } from '../../process/process-tree.ts';
import { isChanged } from '../../process/program.ts';
import type { ExecResult } from '../../runner/exec.ts';
import { exitCodeOf } from '../../runner/outcome.ts';
import type { SignalSource } from '../../platform/signals.ts';
import type { Emit } from '../../events/events.ts';
import {
  EXIT_LOST,
  EXIT_STOPPED,
  EXIT_TIMED_OUT,
  EXIT_UNHEALTHY,
  assertNever,
  exitStatus,
} from '../../errors.ts';
import type { Attempt } from '../../metrics/textfile.ts';
import { NOT_UTF8 } from '../../state/document.ts';
import type { Platform } from '../platform.ts';
import { liveOf, withWays } from '../with-consul.ts';
import type { Ways } from '../with-consul.ts';

export interface ExecAsked extends Asked<ExecOptions> {
  readonly conflictExitCode: number;
  /** File for the metrics of the attempt. */
  readonly metricsFile?: string;
  /** Of a task; undefined: those of the caller. */
  readonly surroundings?: Pick<ExecDeps, 'env' | 'cwd' | 'become'>;
}

export function run(invocation: ExecAsked, platform: Platform): Promise<number> {
  const { when = [], publish = [], during = [] } = invocation.options;
  if (when.some(({ text }) => isChanged(text))) throw usage(`--when: ${NOT_UTF8}`);
  if (publish.some(({ value }) => isChanged(value))) throw usage(`--publish: ${NOT_UTF8}`);
  if (during.some(({ value }) => isChanged(value))) throw usage(`--during: ${NOT_UTF8}`);
  // Listen first, so that an early signal does not kill the process. The run decides what a signal does.
  const signals = platform.listenToSignals();
  return withWays({ common: invocation.common }, platform, async (ways) => {
    const note = await noteFor(invocation, platform, ways.deps.emit);
    let result: ExecResult;
    try {
      result = await runWith(ways, invocation, { platform, signals });
    } catch (error) {
      await note({ outcome: 'error', exitCode: exitStatus(error) });
      throw error;
    }
    const exitCode = toStatus(result, invocation.conflictExitCode);
    if (result.kind !== 'dry-run') await note({ ...result.figures, exitCode });
    return exitCode;
  });
}

interface Around {
  readonly platform: Platform;
  readonly signals: SignalSource;
}

async function runWith(ways: Ways, invocation: ExecAsked, around: Around): Promise<ExecResult> {
  const naming = newRun();
  // Another thread computes the run's id; load code meanwhile.
  void import('../../runner/exec.ts');
  const run = await naming;
  const { inherited, prepareLog } = around.platform;
  const { clock, emit } = ways.deps;
  // A dry run starts nothing.
  const contained = invocation.options.dryRun
    ? NOWHERE
    : containRun({ run: run.id, clock, emit, inherited: inherited(), prepareLog });
  try {
    return await runIn(ways, invocation, { ...around, run, contained });
  } finally {
    await contained.close();
  }
}

const NOWHERE: Containment = {
  cgroup: () => undefined,
  fileLimit: () => undefined,
  close: () => Promise.resolve(),
};

async function runIn(
  { deps: { emit }, connect }: Ways,
  { common, options, surroundings }: ExecAsked,
  { platform, ...own }: Around & Pick<ExecDeps, 'run' | 'contained'>,
): Promise<ExecResult> {
  const [{ exec }, consul, live] = await Promise.all([
    import('../../runner/exec.ts'),
    connect(),
    liveOf(platform, common),
    // The machine's id is a hash, which another thread computes meanwhile.
    platform.deps.host.place(),
  ]);
  const deps: ExecDeps = {
    ...platform.deps,
    ...own,
    emit,
    consul,
    connectTo: connect,
    newId: platform.newRunId,
    inside: runOf(platform.env),
    causes: causesIn(platform.env),
    ...(surroundings ?? { env: withoutOptions(platform.env) }),
    runFiles: platform.runFiles(emit),
    openTurn: platform.openTurn,
    uid: platform.uid,
    inherited: platform.inherited,
    // Another user's command in this terminal could type into it (TIOCSTI).
    shareTerminal: platform.hasTerminal() && surroundings?.become === undefined,
    ...live,
  };
  return exec(deps, options);
}

/** How the attempt ended, with the figures that are known. */
interface Noted {
  readonly outcome: Attempt['outcome'];
  readonly exitCode: number;
  readonly waitedMs?: Figures['waitedMs'];
  readonly ranMs?: number;
}

type Note = (attempt: Noted) => Promise<void>;

/**
 * Returns a function that writes the metrics file. It does nothing for a dry run, or if no file is asked for. A failed
 * write does not change the exit code.
 * @throws RunlockError `config`: the file's folder does not exist.
 */
async function noteFor(
  { metricsFile, options: { groups, dryRun } }: ExecAsked,
  { deps: { clock } }: Platform,
  emit: Emit,
): Promise<Note> {
  if (metricsFile === undefined || dryRun) return () => Promise.resolve();
  const { checkMetricsFile, writeMetrics } = await import('../../metrics/textfile.ts');
  checkMetricsFile(metricsFile);
  return async ({ waitedMs = {}, ...attempt }) => {
    const all = { ...attempt, endedAtMs: clock.now() };
    const names = groups.map(({ group }) => group);
    const attempts = names.map((group) => ({ ...all, group, waitedMs: waitedMs[group] }));
    const why = await writeMetrics(metricsFile, attempts);
    if (why === undefined) return;
    emit({ event: 'metrics-unwritten', group: names.join(','), file: metricsFile, why });
  };
}

function toStatus(result: ExecResult, conflictExitCode: number): number {
  switch (result.kind) {
    case 'ended':
      return exitCodeOf(result.ending);
    case 'interrupted':
      return exitCodeOf({ kind: 'signalled', signal: result.signal });
    case 'timed-out':
      return EXIT_TIMED_OUT;
    case 'unhealthy':
      return EXIT_UNHEALTHY;
    case 'lost':
      return EXIT_LOST;
    case 'left':
    case 'cancelled':
      return EXIT_STOPPED;
    case 'busy':
      return conflictExitCode;
    case 'dry-run':
      return 0;
    default:
      return assertNever(result);
  }
}
