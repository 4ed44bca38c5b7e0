// A pipe whose ends and flags a test can look at.
import { execFileSync } from 'node:child_process';
import { closeSync, constants, openSync, readFileSync, readSync, writeSync } from 'node:fs';
import { onTestFinished } from 'vitest';
import { stage } from './stage.ts';

export interface Pipe {
  /** Blocking; for a program's stdout or stderr. Reads as well, so that it never lacks a reader. */
  readonly fd: number;
  /** So much that nothing more goes in. */
  readonly fill: () => void;
  /** What is in it now. */
  readonly drain: () => string;
}

export function pipe(): Pipe {
  const path = `${stage().folder}/pipe`;
  execFileSync('mkfifo', [path]);
  const open = (flags: number) => {
    const fd = openSync(path, flags);
    onTestFinished(() => closeSync(fd));
    return fd;
  };
  const fd = open(constants.O_RDWR);
  const reader = open(constants.O_RDONLY | constants.O_NONBLOCK);
  const writer = open(constants.O_WRONLY | constants.O_NONBLOCK);
  const until = (act: () => number) => {
    try {
      while (act() > 0);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EAGAIN') throw error;
    }
  };
  return {
    fd,
    fill: () => ['.'.repeat(4096), '.'].forEach((text) => until(() => writeSync(writer, text))),
    drain() {
      const parts: Buffer[] = [];
      const part = Buffer.alloc(65_536);
      until(() => {
        const count = readSync(reader, part);
        parts.push(Buffer.from(part.subarray(0, count)));
        return count;
      });
      return Buffer.concat(parts).toString();
    },
  };
}

/** The end for writing of a pipe that nobody reads. */
export function pipeWithoutReader(): number {
  const path = `${stage().folder}/pipe`;
  execFileSync('mkfifo', [path]);
  const reader = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
  const fd = openSync(path, constants.O_WRONLY);
  onTestFinished(() => closeSync(fd));
  closeSync(reader);
  return fd;
}

/** Whether O_NONBLOCK is set on what the descriptor of this process stands for, whoever shares it. */
export function isNonBlocking(fd: number): boolean {
  const [, flags = ''] = /^flags:\s*(\d+)$/m.exec(readFileSync(`/proc/self/fdinfo/${fd}`, 'utf8')) ?? [];
  return (Number.parseInt(flags, 8) & constants.O_NONBLOCK) !== 0;
}
