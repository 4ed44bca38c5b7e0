import { closeSync, openSync, readFileSync, writeSync } from 'node:fs';
import { describe, expect, onTestFinished, test } from 'vitest';
import { createStream } from '../../src/process/streams.ts';
import type { OutputOptions } from '../../src/process/streams.ts';
import { isNonBlocking, pipe, pipeWithoutReader } from '../support/pipe.ts';
import { eventually } from '../support/processes.ts';
import { stage } from '../support/stage.ts';

const streamOn = (fd: number, more: Partial<OutputOptions> = {}) =>
  createStream({ fd, exitJoinsThreads: true, ...more });

function open(path: string, flags: string): number {
  const fd = openSync(path, flags);
  onTestFinished(() => closeSync(fd));
  return fd;
}

describe('a pipe', () => {
  test('stays blocking for whoever shares it, and lines are there at once', () => {
    const { fd, drain } = pipe();
    streamOn(fd).write('a line\n');
    expect(drain()).toBe('a line\n');
    expect(isNonBlocking(fd)).toBe(false);
  });

  test('that is full keeps nobody waiting, and all arrives in order when it is read', async () => {
    const { fd, fill, drain } = pipe();
    fill();
    const stream = streamOn(fd);
    const written: number[] = [];
    for (let line = 0; line < 3; line++) stream.write(`${line}\n`, () => written.push(line));
    const big = 'x'.repeat(1_000_000);
    stream.write(`${big}\n`);
    expect(stream.isBehind).toBe(true);
    expect(written).toEqual([]);
    let text = '';
    await eventually(() => {
      text += drain();
      expect(text.endsWith('x\n')).toBe(true);
    });
    expect(text.replace(/^\.+/, '')).toBe(`0\n1\n2\n${big}\n`);
    expect(written).toEqual([0, 1, 2]);
    expect(stream.isBehind).toBe(false);
    expect(stream.fault).toBeUndefined();
  });

  test('whose reader never comes back keeps no end waiting, and what would be too much is counted', async () => {
    const { fd, fill, drain } = pipe();
    fill();
    const lost: number[] = [];
    const stream = streamOn(fd, { limit: 10, onLost: (count) => lost.push(count) });
    for (const line of ['12345\n', '67890\n', 'again\n']) stream.write(line);
    await stream.end(20);
    expect(stream.isBehind).toBe(true);
    expect(lost).toEqual([]);
    drain();
    await stream.end(10_000);
    expect(drain()).toBe('12345\n');
    expect(lost).toEqual([2]);
  });

  test('that nobody reads any more is no fault, and is told', async () => {
    const stream = streamOn(pipeWithoutReader());
    const told: string[] = [];
    stream.on('error', () => told.push('error'));
    await new Promise<void>((resolve) => stream.write('a line\n', resolve));
    expect(told).toEqual(['error']);
    expect(stream.fault).toBeUndefined();
    expect(stream.isBehind).toBe(false);
  });
});

describe('a file', () => {
  test('what runlock writes stands between what the command wrote before and after', () => {
    const { folder } = stage();
    const fd = open(`${folder}/log`, 'w');
    const stream = streamOn(fd);
    for (const word of ['one', 'two']) {
      stream.write(`runlock: ${word}\n`);
      writeSync(fd, `command: ${word}\n`);
    }
    expect(readFileSync(`${folder}/log`, 'utf8')).toBe(
      'runlock: one\ncommand: one\nrunlock: two\ncommand: two\n',
    );
  });

  test('on a full disk is a fault', () => {
    const stream = streamOn(open('/dev/full', 'w'));
    stream.write('a line\n');
    expect(stream.fault?.code).toBe('ENOSPC');
  });
});

test('a descriptor that is closed swallows all', async () => {
  const fd = openSync('/dev/null', 'w');
  closeSync(fd);
  const stream = streamOn(fd);
  stream.write('a line\n');
  await stream.end(10_000);
  expect(stream.fault).toBeUndefined();
});
