/**
 * Writes metrics of a group's last attempt for node_exporter's textfile collector
 * (https://github.com/prometheus/node_exporter#textfile-collector). The file is never half written.
 */
import { randomUUID } from 'node:crypto';
import { lstatSync, statSync } from 'node:fs';
import type { Stats } from 'node:fs';
import { dirname } from 'node:path';
import { RunlockError } from '../errors.ts';
import { replaceFile } from './replace-file.ts';

/** How an attempt ended; `error`: before it was known whether the group has a slot. */
export const OUTCOMES = [
  ...['succeeded', 'failed', 'unhealthy', 'rebooting', 'interrupted', 'timed-out', 'evicted', 'lost'],
  ...['busy', 'error'],
] as const;

/** One attempt to run, in one of its groups. */
export interface Attempt {
  readonly group: string;
  readonly outcome: string;
  /** Exit status of runlock. */
  readonly exitCode: number;
  /** Wall-clock milliseconds at the end of the attempt. */
  readonly endedAtMs: number;
  /** Undefined: the attempt did not get that far. */
  readonly waitedMs?: number | undefined;
  readonly ranMs?: number | undefined;
}

/** Figures that stay in the file from earlier attempts, in seconds. */
export interface Kept {
  readonly lastSuccess?: number;
  readonly duration?: number;
}

const LAST_SUCCESS = 'runlock_run_last_success_timestamp_seconds';
const DURATION = 'runlock_run_duration_seconds';
const WAIT = 'runlock_wait_seconds';
const EXIT_CODE = 'runlock_last_exit_code';
const OUTCOME = 'runlock_last_outcome';

const HELP: Readonly<Record<string, string>> = {
  [LAST_SUCCESS]: 'When the last good run in the group ended, as a Unix time.',
  [DURATION]: 'How long the command of the last run took.',
  [WAIT]: 'How long the last attempt waited for a slot.',
  [EXIT_CODE]: 'Exit status of the last runlock exec.',
  [OUTCOME]: 'How the last attempt ended: 1 for that outcome, 0 for the others.',
};

/** An attempt, and the figures kept from earlier ones in its group. */
export interface Report {
  readonly attempt: Attempt;
  readonly kept: Kept;
}

/** The text of the file, with a set of samples for each group. Pure. */
export function renderMetrics(reports: readonly Report[]): string {
  const samples = (of: (report: Report) => number | undefined): Sample[] =>
    reports.map((report) => [{ group: report.attempt.group }, of(report)]);
  const seconds = (ms: number | undefined) => (ms === undefined ? undefined : ms / 1000);
  return [
    gauge(
      LAST_SUCCESS,
      samples(({ attempt: { outcome, endedAtMs }, kept }) =>
        outcome === 'succeeded' ? endedAtMs / 1000 : kept.lastSuccess,
      ),
    ),
    gauge(
      DURATION,
      samples(({ attempt: { ranMs }, kept }) => seconds(ranMs) ?? kept.duration),
    ),
    gauge(
      WAIT,
      samples(({ attempt }) => seconds(attempt.waitedMs)),
    ),
    gauge(
      EXIT_CODE,
      samples(({ attempt }) => attempt.exitCode),
    ),
    gauge(OUTCOME, reports.flatMap(outcomeSamples)),
  ].join('');
}

const outcomeSamples = ({ attempt: { group, outcome } }: Report): Sample[] =>
  OUTCOMES.map((each) => [{ group, outcome: each }, each === outcome ? 1 : 0]);

type Sample = readonly [labels: Readonly<Record<string, string>>, value: number | undefined];

/** Leaves out a metric without a value. */
function gauge(name: string, samples: readonly Sample[]): string {
  const lines = samples.flatMap(([labels, value]) => {
    if (value === undefined || !Number.isFinite(value)) return [];
    return [`${name}{${labelText(labels)}} ${Number(value.toFixed(3))}`];
  });
  if (lines.length === 0) return '';
  return [`# HELP ${name} ${HELP[name] ?? ''}`, `# TYPE ${name} gauge`, ...lines, ''].join('\n');
}

const labelText = (labels: Readonly<Record<string, string>>): string =>
  Object.entries(labels)
    .map(([name, value]) => `${name}="${escape(value)}"`)
    .join(',');

const escape = (value: string) =>
  value.replaceAll('\\', '\\\\').replaceAll('"', '\\"').replaceAll('\n', '\\n');

/** Reads the group's earlier figures from the file. Ignores other lines and values that are not numbers. Pure. */
export function readKept(text: string, group: string): Kept {
  const of = (name: string): number | undefined => {
    const start = `${name}{${labelText({ group })}} `;
    const line = text.split('\n').find((each) => each.startsWith(start));
    const word = line?.slice(start.length).trim() ?? '';
    return /^\d+(?:\.\d+)?(?:e\+?\d+)?$/i.test(word) ? Number(word) : undefined;
  };
  const lastSuccess = of(LAST_SUCCESS);
  const duration = of(DURATION);
  return { ...(lastSuccess !== undefined && { lastSuccess }), ...(duration !== undefined && { duration }) };
}

/**
 * Checks before a run that the file can be written.
 * @throws RunlockError `config`: there is no such folder, or the path is not a regular file.
 */
export function checkMetricsFile(path: string): void {
  const folder = dirname(path);
  const where =
    'name a file in the folder where node_exporter looks (its --collector.textfile.directory), such as runlock.prom';
  const found = look(() => statSync(folder));
  if (!found?.isDirectory()) {
    const why = found ? 'is not a folder' : 'does not exist';
    throw new RunlockError('config', `--metrics-file ${path}: ${folder} ${why}; create it, or ${where}`);
  }
  // Replacing the file would destroy a device, a pipe or a link.
  if (look(() => lstatSync(path))?.isFile() === false)
    throw new RunlockError('config', `--metrics-file ${path}: it is not a regular file; ${where}`);
}

function look(stat: () => Stats): Stats | undefined {
  try {
    return stat();
  } catch {
    return undefined;
  }
}

/** A healthy file system needs a few milliseconds. */
const WRITE_LIMIT_MS = 5_000;

/**
 * Replaces the file with the figures of an attempt in each of its groups; readers see either the old file or the new
 * one. Resolves to undefined, or to why it failed, worded as part of a sentence; never throws.
 */
export function writeMetrics(
  path: string,
  attempts: readonly Attempt[],
  limitMs = WRITE_LIMIT_MS,
): Promise<string | undefined> {
  return replaceFile({
    path,
    // In the same folder, so that the rename is atomic; not *.prom, so that node_exporter does not read it.
    draft: `${path}.${randomUUID()}`,
    text: (old) =>
      renderMetrics(attempts.map((attempt) => ({ attempt, kept: readKept(old, attempt.group) }))),
    limitMs,
  });
}
