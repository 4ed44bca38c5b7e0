import { execFileSync } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, openSync, readFileSync, writeSync } from 'node:fs';
import { open as openInThread } from 'node:fs/promises';
import { connect, createServer } from 'node:net';
import type { Socket } from 'node:net';
import { describe, expect, onTestFinished, test } from 'vitest';
import { createStream } from '../../src/platform/streams.ts';
import type { OutputOptions } from '../../src/platform/streams.ts';
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

// It was no fault: `status >&-` printed nothing, and ended with 0.
test('a descriptor that is closed holds nobody up, and is a fault', async () => {
  const fd = openSync('/dev/null', 'w');
  closeSync(fd);
  const stream = streamOn(fd);
  stream.write('a line\n');
  await stream.end(10_000);
  expect(stream.fault).toMatchObject({ code: 'EBADF' });
});

describe('a pipe of another user’s, which only a thread can wait for', () => {
  /** What can't be opened anew: a socket stands for it. */
  async function connected() {
    const server = createServer();
    const path = `${stage().folder}/socket`;
    server.listen(path);
    await once(server, 'listening');
    const client = connect(path);
    const [peer] = (await once(server, 'connection')) as [Socket];
    onTestFinished(() => {
      client.destroy();
      peer.destroy();
      server.close();
    });
    let text = '';
    peer.setEncoding('utf8').on('data', (part: string) => (text += part));
    const { fd } = (client as unknown as { _handle: { fd: number } })._handle;
    return { fd, text: () => text };
  }

  /** Until it is told to, no thread of this process does anything else. */
  function occupyThreads(): () => void {
    const pipes = Array.from({ length: 4 }, () => `${stage().folder}/pipe`);
    for (const path of pipes) {
      execFileSync('mkfifo', [path]);
      void openInThread(path, 'r').then((file) => file.close());
    }
    return () => pipes.forEach((path) => closeSync(openSync(path, 'r+')));
  }

  test('has all that is written, in order', async () => {
    const { fd, text } = await connected();
    const stream = streamOn(fd, { exitJoinsThreads: false });
    stream.write('one\n');
    stream.write('two\n');
    await stream.end(10_000);
    await eventually(() => expect(text()).toBe('one\ntwo\n'));
  });

  test('has it at the end, too, where no thread can be started', async () => {
    const { fd, text } = await connected();
    const release = occupyThreads();
    try {
      const stream = streamOn(fd, { exitJoinsThreads: false });
      stream.write('one\n');
      stream.write('two\n');
      await stream.end(20);
      await eventually(() => expect(text()).toBe('one\ntwo\n'));
    } finally {
      release();
    }
  });
});
