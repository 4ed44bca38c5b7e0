// The log of a run in pieces, its last lines, and what is on a terminal harmless.
import { mkdirSync, symlinkSync, utimesSync, writeFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { readLog } from '../../src/agent/log-file.ts';
import type { LogQuestion } from '../../src/agent/log-file.ts';
import { harmless } from '../../src/text/harmless.ts';
import { stage } from '../support/stage.ts';

const uid = process.getuid?.() ?? 0;

async function read(file: string, question: Partial<LogQuestion> = {}) {
  const whole = { from: undefined, lines: undefined, most: 1_000_000, isOver: true, uid, ...question };
  const slice = await readLog(file, whole);
  return slice && { ...slice, bytes: slice.bytes.toString() };
}

describe('a log', () => {
  test('is read from where it is asked for, as much as is asked for', async () => {
    const file = `${stage().folder}/j.log`;
    writeFileSync(file, '0123456789');
    expect(await read(file)).toEqual({ from: 0, bytes: '0123456789', size: 10 });
    expect(await read(file, { from: 3, most: 4 })).toEqual({ from: 3, bytes: '3456', size: 10 });
    expect(await read(file, { from: 8, most: 4 })).toEqual({ from: 8, bytes: '89', size: 10 });
    expect(await read(file, { from: 99 })).toEqual({ from: 10, bytes: '', size: 10 });
  });

  test.each([
    [0, ''],
    [1, 'c\n'],
    [2, 'b\nc\n'],
    [3, 'a\nb\nc\n'],
    [9, 'a\nb\nc\n'],
  ])('has %i last lines', async (lines, bytes) => {
    const file = `${stage().folder}/j.log`;
    writeFileSync(file, 'a\nb\nc\n');
    expect(await read(file, { lines })).toMatchObject({ bytes });
  });

  test('has a last line that has not ended, and lines that are far apart', async () => {
    const file = `${stage().folder}/j.log`;
    writeFileSync(file, `a\n${'x'.repeat(200_000)}\nend`);
    expect(await read(file, { lines: 1 })).toMatchObject({ bytes: 'end' });
    expect((await read(file, { lines: 2 }))?.from).toBe(2);
    // Where both are asked for, it goes on from there.
    expect(await read(file, { lines: 1, from: 0, most: 1 })).toMatchObject({ bytes: 'a' });
  });

  test('of a run that was killed has the rest beside it, the older one first', async () => {
    const file = `${stage().folder}/j.log`;
    for (const [name, bytes, at] of [
      ['', 'head ', 1],
      ['.2', 'older ', 2],
      ['.1', 'newer\n', 3],
    ] as const) {
      writeFileSync(file + name, bytes);
      utimesSync(file + name, at, at);
    }
    expect(await read(file)).toEqual({ from: 0, bytes: 'head older newer\n', size: 17 });
    expect(await read(file, { from: 3, most: 5 })).toMatchObject({ bytes: 'd old' });
    expect(await read(file, { lines: 1, most: 8 })).toMatchObject({ bytes: 'head old' });
    // While it runs they change places.
    expect(await read(file, { isOver: false })).toMatchObject({ bytes: 'head ', size: 5 });
  });

  test('is no link, no folder, and nobody else’s file', async () => {
    const { folder } = stage();
    writeFileSync(`${folder}/secret`, 'x');
    symlinkSync(`${folder}/secret`, `${folder}/j.log`);
    mkdirSync(`${folder}/k.log`);
    for (const name of ['j.log', 'k.log', 'none.log'])
      expect(await read(`${folder}/${name}`)).toBeUndefined();
    expect(await read(`${folder}/secret`, { uid: uid + 1 })).toBeUndefined();
  });
});

describe('on a terminal', () => {
  const shown = (...pieces: readonly (string | Uint8Array)[]) => {
    const output = harmless();
    return pieces.map((each) => output.take(Buffer.from(each))).join('') + output.end();
  };

  test('output has lines and tabs, no colours, and nothing that the terminal obeys', () => {
    expect(shown('a\tb\r\nc\rd\n')).toBe('a\tb\nc\nd\n');
    expect(shown('\x1b[1;31mred\x1b[0m plain\n')).toBe('red plain\n');
    expect(shown('\x1b]0;title\x07 \x1b[2J\u202e\n')).toBe('\\x1b]0;title\\x07 \\x1b[2J\\u202e\n');
    expect(shown(Uint8Array.of(0xff, 0x00, 0x41))).toBe('\ufffd\\x00A');
  });

  test('it is the same however it is cut', () => {
    const text = 'ä\r\n\x1b[31mé\x1b[0m\x1b[?25l\r\x1b';
    const bytes = Buffer.from(text);
    for (let at = 0; at <= bytes.length; at += 1)
      expect(shown(bytes.subarray(0, at), bytes.subarray(at))).toBe('ä\né\\x1b[?25l\n\\x1b');
    expect(shown(...[...bytes].map((byte) => Uint8Array.of(byte)))).toBe('ä\né\\x1b[?25l\n\\x1b');
  });
});
