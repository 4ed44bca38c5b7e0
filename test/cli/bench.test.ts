// What `npm run bench` promises of itself: it works from end to end, what it writes is well-formed, and it leaves
// nothing behind. Its figures are for people to read.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, onTestFinished, test } from 'vitest';
import { end, eventually } from '../support/processes.ts';
import { stage } from '../support/stage.ts';

/** Processes that have the folder's name in their arguments or their environment. */
function carriers(folder: string): number[] {
  const names = (pid: number, file: string) => readFileSync(`/proc/${pid}/${file}`, 'utf8').includes(folder);
  return readdirSync('/proc')
    .map(Number)
    .filter((pid) => {
      try {
        return pid > 0 && (names(pid, 'cmdline') || names(pid, 'environ'));
      } catch {
        return false;
      }
    });
}

/** `more`: what its environment has besides, which may name files that it puts into the folder. */
function startBench(
  args: readonly string[],
  more: (folder: string) => Readonly<Record<string, string>> = () => ({}),
) {
  const { folder } = stage();
  onTestFinished(() => carriers(folder).forEach(end));
  const temporary = join(folder, 'tmp');
  mkdirSync(temporary);
  const json = join(folder, 'bench.json');
  const words = ['scripts/run.js', 'scripts/bench.ts', '--json', json, ...args];
  const child = spawn(process.execPath, words, {
    env: { ...process.env, TMPDIR: temporary, ...more(folder) },
    stdio: ['ignore', 'pipe', 'pipe'],
    // A process group that can be signalled as a terminal does it.
    detached: true,
  });
  const output = { stdout: '', stderr: '' };
  child.stdout.setEncoding('utf8').on('data', (text: string) => (output.stdout += text));
  child.stderr.setEncoding('utf8').on('data', (text: string) => (output.stderr += text));
  return {
    folder,
    pid: child.pid ?? 0,
    /** Resolves when nobody holds its output any more. */
    ended: once(child, 'close').then(([status]: unknown[]) => status),
    output,
    json: () => JSON.parse(readFileSync(json, 'utf8')) as Written,
    left: () => ({ processes: carriers(folder), files: readdirSync(temporary) }),
  };
}

interface Written {
  readonly quick: boolean;
  readonly failed: readonly string[];
  readonly machine: { readonly cores: number };
  readonly versions: Readonly<Record<string, string>>;
  readonly parts: readonly {
    readonly rows: readonly {
      readonly section: string;
      readonly what: string;
      readonly runlock: number;
      readonly others: Readonly<Record<string, number>>;
    }[];
    readonly raw: object;
  }[];
}

const NOTHING = { processes: [], files: [] };
const page = () => (existsSync('docs/benchmarks.md') ? readFileSync('docs/benchmarks.md', 'utf8') : '');

/** The cells of each table's lines. */
function tablesOf(markdown: string): string[][][] {
  const tables = markdown.match(/(?:^\|.*\|\n)+/gm) ?? [];
  return tables.map((table) =>
    table
      .trimEnd()
      .split('\n')
      .map((line) => line.slice(2, -2).split(' | ')),
  );
}

test('a quick run measures every part, prints tables, writes raw figures, leaves nothing behind', async () => {
  const before = page();
  const bench = startBench(['--quick']);
  expect(await bench.ended, bench.output.stderr).toBe(0);
  const { quick, machine, versions, parts, failed } = bench.json();
  expect({ quick, failed }).toEqual({ quick: true, failed: [] });
  expect(machine.cores).toBeGreaterThan(0);
  expect(versions).toMatchObject({
    consul: expect.stringMatching(/\d/) as string,
    'Node.js': process.version,
  });
  const rows = parts.flatMap((part) => part.rows);
  for (const { what, runlock, others } of rows)
    expect(
      [runlock, ...Object.values(others)].every((figure) => Number.isFinite(figure) && figure >= 0),
      what,
    ).toBe(true);
  const tables = tablesOf(bench.output.stdout);
  expect(tables.map(([, , ...lines]) => lines.map(([what]) => what))).toEqual(
    [...new Set(rows.map(({ section }) => section))].map((title) =>
      rows.filter(({ section }) => section === title).map(({ what }) => what),
    ),
  );
  for (const [head, ...lines] of tables)
    for (const line of lines) expect(line).toHaveLength(head?.length ?? NaN);
  expect(page(), 'only a full run writes the page').toBe(before);
  expect(bench.left()).toEqual(NOTHING);
}, 180_000);

test('Ctrl-C ends all that it started and removes its files', async () => {
  const bench = startBench(['--quick', '--only', 'hand-over']);
  await eventually(() => expect(bench.output.stderr).toContain('3 waiting, runlock'), 30_000);
  expect(bench.left().processes.length).toBeGreaterThan(2);
  process.kill(-bench.pid, 'SIGINT');
  expect(await bench.ended).toBe(130);
  expect(bench.left()).toEqual(NOTHING);
});

test('Ctrl-C while it waits for a tool ends all that it started just so', async () => {
  const bench = startBench(['--quick', '--only', 'hand-over'], (folder) => {
    writeFileSync(join(folder, 'mkfifo'), '#!/bin/sh\n: >"$0.started"\nexec sleep 300\n', { mode: 0o755 });
    return { PATH: `${folder}:${process.env['PATH'] ?? ''}` };
  });
  await eventually(() => expect(existsSync(join(bench.folder, 'mkfifo.started'))).toBe(true), 30_000);
  process.kill(-bench.pid, 'SIGINT');
  expect(await bench.ended).toBe(130);
  expect(bench.left()).toEqual(NOTHING);
});

/** A program that can say its version and nothing else. */
function broken(folder: string): string {
  const file = join(folder, 'runlock');
  writeFileSync(file, '#!/bin/sh\n[ "$1" = --version ] || exit 3\n', { mode: 0o755 });
  return file;
}

/** A runlock that locks nothing. */
function careless(folder: string): string {
  const file = join(folder, 'runlock');
  const script = 'while [ "$1" != -- ]; do shift; done; shift; exec "$@"';
  writeFileSync(file, `#!/bin/sh\n[ "$1" != --version ] || exit 0\n${script}\n`, { mode: 0o755 });
  return file;
}

test.each([
  ['overhead', broken, 'ended with'],
  ['hand-over', broken, 'ended with 3'],
  ['hand-over', careless, 'a process ended that should have waited'],
])('%s that can not be measured fails, and says why', async (part, runlock, why) => {
  const bench = startBench(['--quick', '--only', part], (folder) => ({ RUNLOCK_BIN: runlock(folder) }));
  expect(await bench.ended).toBe(1);
  expect(bench.output.stderr).toContain(why);
  expect(tablesOf(bench.output.stdout)).toEqual([]);
  expect(bench.json().failed).toEqual([expect.stringContaining(why)]);
  expect(bench.left()).toEqual(NOTHING);
});

test.each([[['--only', 'nonsense']], [['--fast']]])('wrong usage %j ends with 64', async (args) => {
  const bench = startBench(args);
  expect(await bench.ended).toBe(64);
  expect(bench.output.stderr).toContain('npm run bench -- [--quick]');
});
