// What the kernel, or a shell, takes for a program: asked before Node and env(1) hand the rest to a shell.
import { readFileSync, writeFileSync } from 'node:fs';
import { execFileSync } from 'node:child_process';
import { expect, test } from 'vitest';
import { isMeant, isRunnable, isText } from '../../src/process/program.ts';
import { stage } from '../support/stage.ts';

function written(content: string | Buffer): string {
  const file = `${stage().folder}/file`;
  writeFileSync(file, content, { mode: 0o755 });
  return file;
}

/** A program of this machine with another half word in its header (elf(5)). */
function changed(at: number, value: number): Buffer {
  const program = readFileSync('/bin/true');
  program.writeUInt16LE(value, at);
  return program;
}

test.each([
  ['a program of this machine', () => '/bin/true', true],
  ['this very program', () => process.execPath, true],
  ['a script', () => written('#!/bin/sh\n'), true],
  ['a text', () => written('exit\n'), true],
  ['an empty file', () => written(''), true],
  ['a text that is longer than one look', () => written('x'.repeat(1_000)), true],
  ['a zero byte after the first line', () => written('a\n\0'), true],
  ['a zero byte in it', () => written('a\0\n'), false],
  ['an archive', () => written(Buffer.from('504b0304140008000800', 'hex')), false],
  ['a program for another machine', () => written(changed(18, 22)), false],
  ['an object file', () => written(changed(16, 1)), false],
  ['program headers of another size', () => written(changed(54, 32)), false],
  ['no program headers', () => written(changed(56, 0)), false],
  ['more program headers than the file has', () => written(changed(56, 60_000)), false],
  ['the other byte order', () => written(changed(4, 0x0202)), false],
  ['no more than the mark of a program', () => written('\x7fELF\0'), false],
  // What it is, only the kernel can tell.
  ['what can not be read', () => '/nowhere', true],
  ['a folder', () => '/', true],
])('%s: %s', (_, make, runs) => {
  expect(isRunnable(make())).toBe(runs);
});

test('a pipe is not waited for', () => {
  const pipe = `${stage().folder}/pipe`;
  execFileSync('mkfifo', [pipe]);
  expect(isRunnable(pipe)).toBe(true);
  expect(isText(pipe)).toBe(false);
});

test('what somebody has told the kernel to run otherwise is left to it', () => {
  const qemu = (state: string) =>
    [
      state,
      'interpreter /usr/bin/qemu-s390x',
      'flags: OCF',
      'offset 1',
      'magic 454c4600',
      'mask ffffff00',
      '',
    ].join('\n');
  const head = Buffer.from('\x7fELF\x02\x02', 'latin1');
  const file = '/opt/program';
  expect(isMeant(qemu('enabled'), { file, head })).toBe(true);
  expect(isMeant(qemu('disabled'), { file, head })).toBe(false);
  expect(isMeant(qemu('enabled'), { file, head: Buffer.from('\x7fELX\x02\x02', 'latin1') })).toBe(false);
  expect(isMeant(qemu('enabled'), { file, head: head.subarray(0, 3) })).toBe(false);
  const java = 'enabled\ninterpreter /usr/bin/jexec\nflags: \nextension .jar\n';
  expect(isMeant(java, { file: '/opt/a.jar', head })).toBe(true);
  expect(isMeant(java, { file: '/opt/jar', head })).toBe(false);
});
