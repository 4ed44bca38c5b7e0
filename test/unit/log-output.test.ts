// The output of a command in a file: what is kept of it, and that no disk ever stops the command.
import {
  chmodSync,
  existsSync,
  linkSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { describe, expect, onTestFinished, test } from 'vitest';
import { openLogOutput } from '../../src/runner/log-output.ts';
import type { LogOptions } from '../../src/runner/log-output.ts';
import { lastLine } from '../../src/text/last-line.ts';

const uid = process.geteuid?.() ?? 0;
const drained = Promise.resolve();
const SMALL = { head: 100, tail: 50, free: 0, waiting: 10_000 };

function setUp() {
  const folder = mkdtempSync(`${tmpdir()}/log-output-`);
  onTestFinished(() => rmSync(folder, { recursive: true, force: true }));
  const file = `${folder}/run.log`;
  const lost: string[] = [];
  const open = (more: Partial<LogOptions> = {}) =>
    openLogOutput({ file, uid, lost: (why) => void lost.push(why), limits: SMALL, ...more });
  return { folder, file, lost, open, text: () => readFileSync(file, 'utf8') };
}

const bytes = (text: string) => Buffer.from(text);
const lineOf = (number: number) => `line ${String(number).padStart(4, '0')}\n`;

describe('the file of a run', () => {
  test('has all of a short output, for its user and group alone', async () => {
    const { open, text, file, lost } = setUp();
    const output = await open();
    void output.hear(bytes('one\n'));
    void output.hear(bytes('two'));
    await output.end(drained);
    expect(text()).toBe('one\ntwo');
    expect(statSync(file).mode & 0o777 & ~0o640).toBe(0);
    expect(lost).toEqual([]);
  });

  test('keeps what is there already', async () => {
    const { open, text, file } = setUp();
    writeFileSync(file, 'before\n', { mode: 0o640 });
    const output = await open();
    void output.hear(bytes('after\n'));
    await output.end(drained);
    expect(text()).toBe('before\nafter\n');
  });

  test.each([10, 11, 14, 15, 19, 20, 21, 25, 26, 1_000])(
    'of %i lines: the beginning, the end, and how much between them is left out',
    async (many) => {
      const { open, text, folder } = setUp();
      const output = await open();
      const lines = Array.from({ length: many }, (_, at) => lineOf(at));
      for (const line of lines) void output.hear(bytes(line));
      await output.end(drained);
      const all = lines.join('');
      const cut = /\n\[runlock: (\d+) bytes are left out here\]\n/.exec(text());
      if (!cut) {
        expect(text()).toBe(all);
        expect(all.length).toBeLessThanOrEqual(200);
      } else {
        const [head = '', end = ''] = text().split(cut[0]);
        expect(head).toBe(all.slice(0, 100));
        expect(all.endsWith(end)).toBe(true);
        expect(end.length).toBeGreaterThan(50);
        expect(end.length).toBeLessThanOrEqual(100);
        expect(head.length + end.length + Number(cut[1])).toBe(all.length);
      }
      expect(readdirSync(folder)).toEqual(['run.log']);
    },
  );

  /** Files are renamed and removed meanwhile: each file counts once, under whatever name. */
  const sizeOf = (folder: string) => {
    const found = readdirSync(folder).flatMap(
      (name) => statSync(`${folder}/${name}`, { throwIfNoEntry: false }) ?? [],
    );
    const sizes = new Map(found.map(({ ino, size }) => [ino, size]));
    return [...sizes.values()].reduce((sum, size) => sum + size, 0);
  };

  test('never takes more than its bounds while the command runs', async () => {
    const { open, folder } = setUp();
    const output = await open();
    for (let at = 0; at < 300; at++) {
      void output.hear(bytes(lineOf(at)));
      await new Promise((resolve) => setImmediate(resolve));
      expect(sizeOf(folder)).toBeLessThanOrEqual(200);
    }
    await output.end(drained);
  });

  test('says what a slow disk left out, and hearing never waits', async () => {
    const { open, text } = setUp();
    const output = await open({ limits: { ...SMALL, head: 1_000, waiting: 30 } });
    for (let at = 0; at < 10; at++) void output.hear(bytes(lineOf(at)));
    await output.end(drained);
    expect(text()).toMatch(
      /\[runlock: \d+ bytes are missing here: the disk was too slow\]\n[^[]*line 0009\n$/,
    );
  });

  test('is not written on a disk that is nearly full, which is said once', async () => {
    const { open, text, lost } = setUp();
    const output = await open({ limits: { ...SMALL, free: 1 } });
    void output.hear(bytes('one\n'));
    void output.hear(bytes('two\n'));
    await output.end(drained);
    expect(text()).toBe('');
    expect(lost).toEqual([expect.stringMatching(/less than 100 % of the disk of \S+ is free/)]);
  });

  test('can not be written: said once, and the command goes on', async () => {
    const { open, lost, folder } = setUp();
    const output = await open();
    rmSync(folder, { recursive: true });
    for (let at = 0; at < 30; at++) void output.hear(bytes(lineOf(at)));
    await output.end(drained);
    expect(lost).toHaveLength(1);
  });

  test.each<[string, (file: string) => unknown]>([
    ['a link', (file) => symlinkSync('/dev/null', file)],
    ['a folder’s name', (file) => symlinkSync('.', file)],
    [
      'a file with another name',
      (file) => {
        writeFileSync(`${file}.x`, '');
        linkSync(`${file}.x`, file);
      },
    ],
    [
      'a file that others can write',
      (file) => {
        writeFileSync(file, '');
        chmodSync(file, 0o666);
      },
    ],
    ['in a folder that is not there', (file) => rmSync(file.replace(/\/[^/]*$/, ''), { recursive: true })],
  ])('%s: refused before anything is started', async (_, make) => {
    const { open, file } = setUp();
    make(file);
    await expect(open()).rejects.toMatchObject({ code: 'config' });
  });

  test('a link where the end of the output goes is replaced, never followed', async () => {
    const { open, file, folder } = setUp();
    writeFileSync(`${folder}/precious`, 'mine');
    symlinkSync(`${folder}/precious`, `${file}.1`);
    const output = await open();
    for (let at = 0; at < 30; at++) void output.hear(bytes(lineOf(at)));
    await output.end(drained);
    expect(readFileSync(`${folder}/precious`, 'utf8')).toBe('mine');
    expect(existsSync(`${file}.1`)).toBe(false);
  });

  test('tells each last line', async () => {
    const { open } = setUp();
    const lines: string[] = [];
    const output = await open({ onLine: (line) => void lines.push(line) });
    void output.hear(bytes('one\ntw'));
    void output.hear(bytes('o\n'));
    await output.end(drained);
    expect(lines).toEqual(['tw', 'two']);
  });
});

describe('the last line', () => {
  const of = (...parts: (string | Uint8Array)[]) => {
    const line = lastLine();
    for (const part of parts) line.hear(typeof part === 'string' ? bytes(part) : part);
    return line.read();
  };

  test.each([
    ['', ['']],
    ['b', ['a\nb\n']],
    ['b', ['a\nb\n\n  \n']],
    ['be', ['a\nb', 'e']],
    ['50 %', ['10 %\r20 %\r50 %']],
    ['\\x1b[31mred', ['\u001b[31mred\n']],
    ['ü', [Buffer.from([0xc3]), Buffer.from([0xbc])]],
    ['x'.repeat(200), ['x'.repeat(10_000)]],
    ['y'.repeat(200), [`${'y'.repeat(10_000)}\n`]],
  ])('%j', (expected, parts) => expect(of(...parts)).toBe(expected));
});
