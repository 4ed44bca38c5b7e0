/**
 * The optional code of a run, loaded before the wait starts, since an upgrade may replace runlock's files during it. A
 * run that needs none of it loads none.
 */
import type { ExecDeps, ExecOptions } from './options.ts';
import type { Part } from './part.ts';

export async function loadNeeded(deps: ExecDeps, options: ExecOptions) {
  const { gate, when = [] } = options;
  const [gated, outside, parted, keys, logs] = await Promise.all([
    gate ? import('./gated.ts') : undefined,
    gate || when.length > 0 ? loadOutside(when.length > 0) : undefined,
    loadParts(deps, options),
    deps.shareTerminal ? import('./terminal-keys.ts') : undefined,
    options.logFile === undefined ? undefined : import('./log-output.ts'),
  ]);
  return { openGated: gated?.openGated, outside, parted, keys, openLogOutput: logs?.openLogOutput };
}

export async function loadOutside(hasConditions: boolean) {
  const [{ enterFromOutside }, { recordWaits }, conditions] = await Promise.all([
    import('./outside.ts'),
    import('./outside-record.ts'),
    hasConditions ? import('./when.ts') : undefined,
  ]);
  return { enterFromOutside, recordWaits, runConditions: conditions?.runConditions };
}

/** What has a part in the run's start and end, in the order of their steps; undefined: nothing has. */
async function loadParts(deps: ExecDeps, options: ExecOptions) {
  const { when = [], publish, during, prefix, trigger, job } = options;
  const hasStates = (publish ?? during) !== undefined || when.some(({ kind }) => kind === 'state');
  const parts: readonly Part[] = [
    // First, because it knows what has led to the run.
    ...(trigger ? [(await import('./trigger-part.ts')).triggerPart(deps, prefix, trigger)] : []),
    ...(job ? [(await import('./job-part.ts')).jobPart(deps, { ...options, job })] : []),
    // Last: conditions that find no room in the transaction are left out of it.
    ...(hasStates ? [(await import('./states-part.ts')).statesPart(deps, options)] : []),
  ];
  if (parts.length === 0) return undefined;
  const [{ begin }, { endTogether }] = await Promise.all([import('./begin.ts'), import('./end.ts')]);
  return { parts, begin, endTogether };
}

export type Parted = NonNullable<Awaited<ReturnType<typeof loadParts>>>;
