import { execFileSync } from 'node:child_process';
import {
  chmodSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  statSync,
  symlinkSync,
  watch,
  writeFileSync,
} from 'node:fs';
import { describe, expect, onTestFinished, test } from 'vitest';
import type { RunlockError } from '../../src/errors.ts';
import {
  OUTCOMES,
  checkMetricsFile,
  readKept,
  renderMetrics,
  writeMetrics,
} from '../../src/metrics/textfile.ts';
import type { Attempt } from '../../src/metrics/textfile.ts';
import { eventually } from '../support/processes.ts';
import { stage } from '../support/stage.ts';

const attempt: Attempt = {
  ...{ group: 'prod/web', outcome: 'succeeded', exitCode: 0 },
  ...{ endedAtMs: 1_772_323_200_123, waitedMs: 1_500, ranMs: 61_000 },
};
const samples = (text: string) => text.split('\n').filter((line) => line !== '' && !line.startsWith('#'));

describe('the text', () => {
  test('has HELP and TYPE before each metric, base units, and one outcome of all that is 1', () => {
    const text = renderMetrics([{ attempt, kept: {} }]);
    const outcomes = OUTCOMES.map(
      (each) => `runlock_last_outcome{group="prod/web",outcome="${each}"} ${each === 'succeeded' ? 1 : 0}`,
    );
    expect(samples(text)).toEqual([
      'runlock_run_last_success_timestamp_seconds{group="prod/web"} 1772323200.123',
      'runlock_run_duration_seconds{group="prod/web"} 61',
      'runlock_wait_seconds{group="prod/web"} 1.5',
      'runlock_last_exit_code{group="prod/web"} 0',
      ...outcomes,
    ]);
    const names = [...new Set(samples(text).map((line) => line.replace(/\{.*/, '')))];
    for (const name of names)
      expect(text).toMatch(new RegExp(`# HELP ${name} .+\\n# TYPE ${name} gauge\\n${name}\\{`));
    expect(text.endsWith('\n')).toBe(true);
  });

  test('escapes what a label may not have', () => {
    const group = 'a"b\\c\nd';
    const text = renderMetrics([{ attempt: { ...attempt, group }, kept: {} }]);
    expect(text).toContain(String.raw`{group="a\"b\\c\nd"}`);
    expect(readKept(text, group)).toEqual({ lastSuccess: 1_772_323_200.123, duration: 61 });
  });

  test('leaves out what is not known', () => {
    const { group } = attempt;
    const text = renderMetrics([
      { attempt: { group, outcome: 'error', exitCode: 69, endedAtMs: 1 }, kept: {} },
    ]);
    expect(text).not.toMatch(/last_success|duration|wait/);
    expect(text).toContain('runlock_last_exit_code{group="prod/web"} 69');
  });

  test('of several groups has HELP and TYPE once, and each with its own samples', () => {
    const other = { ...attempt, group: 'rack/r4', outcome: 'busy', waitedMs: undefined, ranMs: undefined };
    const text = renderMetrics([
      { attempt, kept: {} },
      { attempt: other, kept: { lastSuccess: 5, duration: 7 } },
    ]);
    expect(text.match(/^# (?:HELP|TYPE) \w+/gm)).toHaveLength(10);
    expect(samples(text).filter((line) => line.includes('rack/r4') && !line.endsWith(' 0'))).toEqual([
      'runlock_run_last_success_timestamp_seconds{group="rack/r4"} 5',
      'runlock_run_duration_seconds{group="rack/r4"} 7',
      'runlock_last_outcome{group="rack/r4",outcome="busy"} 1',
    ]);
    expect(samples(text)).toContain('runlock_wait_seconds{group="prod/web"} 1.5');
    expect(readKept(text, 'rack/r4')).toEqual({ lastSuccess: 5, duration: 7 });
  });
});

describe('what an earlier attempt left', () => {
  const before = renderMetrics([{ attempt, kept: {} }]);

  test('busy keeps the last success and how long the last run took', () => {
    const busy = {
      ...attempt,
      outcome: 'busy',
      exitCode: 75,
      endedAtMs: 1_772_326_800_000,
      ranMs: undefined,
    };
    const text = renderMetrics([{ attempt: busy, kept: readKept(before, 'prod/web') }]);
    expect(samples(text).slice(0, 2)).toEqual(samples(before).slice(0, 2));
  });

  test.each([
    ['nothing', ''],
    ['binary', '\u0000\u0001'],
    ['no number', 'runlock_run_last_success_timestamp_seconds{group="prod/web"} soon'],
    ['NaN', 'runlock_run_last_success_timestamp_seconds{group="prod/web"} NaN'],
    ['another group', before.replaceAll('prod/web', 'prod/db')],
    ['half a line', 'runlock_run_last_success_timestamp_seconds{group="prod/web"}'],
  ])('%s is passed over', (_, text) => {
    expect(readKept(text, 'prod/web')).toEqual({});
  });
});

const refusal = (path: string) => {
  try {
    checkMetricsFile(path);
  } catch (error) {
    return error as RunlockError;
  }
  return undefined;
};

describe('the file', () => {
  test('is replaced whole, for all to read whatever the umask, and nothing else is left', async () => {
    const { folder } = stage();
    const path = `${folder}/runlock.prom`;
    const umask = process.umask(0o077);
    try {
      expect(await writeMetrics(path, [attempt])).toBeUndefined();
    } finally {
      process.umask(umask);
    }
    const inode = statSync(path).ino;
    expect(statSync(path).mode & 0o777).toBe(0o644);
    expect(await writeMetrics(path, [{ ...attempt, outcome: 'failed', exitCode: 3 }])).toBeUndefined();
    expect(statSync(path).ino).not.toBe(inode);
    expect(readFileSync(path, 'utf8')).toContain(
      'last_success_timestamp_seconds{group="prod/web"} 1772323200.123\n',
    );
    expect(readdirSync(folder)).toEqual(['runlock.prom']);
  });

  test('has no second name that node_exporter would read, not even for a moment', async () => {
    const { folder } = stage();
    const names: (string | null)[] = [];
    const watcher = watch(folder, (_, name) => names.push(name));
    onTestFinished(() => watcher.close());
    expect(await writeMetrics(`${folder}/runlock.prom`, [attempt])).toBeUndefined();
    // The kernel tells in order: what came before the name itself has been heard of by then.
    await eventually(() => expect(names).toContain('runlock.prom'));
    expect(names.filter((name) => name === null || name.endsWith('.prom'))).toEqual(['runlock.prom']);
    expect(names.length).toBeGreaterThan(1);
  });

  test('that can’t be written is a reason, never an error, and leaves no draft', async () => {
    const { folder } = stage();
    mkdirSync(`${folder}/taken/inside`, { recursive: true });
    expect(await writeMetrics(`${folder}/taken`, [attempt])).toBe('it is not a regular file any more');
    expect(await writeMetrics(`${folder}/none/file.prom`, [attempt])).toMatch(
      /No such file or directory|[Dd]irectory nonexistent/,
    );
    expect(readdirSync(folder)).toEqual(['taken']);
  });

  test('that has become a pipe, a link or a device keeps nobody waiting, and is left alone', async () => {
    const { folder } = stage();
    execFileSync('mkfifo', [`${folder}/pipe`]);
    writeFileSync(`${folder}/plain`, 'mine');
    symlinkSync(`${folder}/plain`, `${folder}/link`);
    for (const path of [`${folder}/pipe`, `${folder}/link`, '/dev/zero'])
      expect(await writeMetrics(path, [attempt])).toBe('it is not a regular file any more');
    expect(readFileSync(`${folder}/plain`, 'utf8')).toBe('mine');
    expect(readdirSync(folder).sort()).toEqual(['link', 'pipe', 'plain']);
  });

  test('needs a folder before the run, and must not be a link, a pipe or a device', () => {
    const { folder } = stage();
    writeFileSync(`${folder}/plain`, '');
    symlinkSync(`${folder}/plain`, `${folder}/link`);
    expect(refusal(`${folder}/new.prom`)).toBeUndefined();
    expect(refusal(`${folder}/plain`)).toBeUndefined();
    expect(refusal(`${folder}/none/new.prom`)?.message).toContain(`${folder}/none does not exist`);
    expect(refusal(`${folder}/plain/new.prom`)?.message).toContain(`${folder}/plain is not a folder`);
    for (const path of [`${folder}/link`, folder, '/dev/null'])
      expect(refusal(path)).toMatchObject({
        code: 'config',
        message: expect.stringContaining('not a regular file') as string,
      });
    chmodSync(`${folder}/plain`, 0o000);
    expect(refusal(`${folder}/plain`)).toBeUndefined();
  });
});
