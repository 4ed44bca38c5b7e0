/** The program of a task, and all that the kernel and env(1) run in its place: nobody else may have put one of them there. */
import { accessSync, closeSync, constants, openSync, readSync, statSync } from 'node:fs';
import { basename } from 'node:path';
import { RunlockError } from '../../errors.ts';
import { checkWay } from '../../platform/trusted-file.ts';
import type { Reader } from '../../platform/trusted-file.ts';

interface Trust extends Reader {
  /** PATH of the command, in which `#!/usr/bin/env` looks. */
  readonly path: string;
}

/**
 * Returns the program and its interpreters, all of which the command's user must be able to execute.
 * @throws RunlockError `config`: which file or folder others can change; an interpreter that can't be known.
 */
export function checkProgram(program: string, trust: Trust): readonly string[] {
  const found = new Set<string>();
  follow(program, { trust, found, from: [] });
  return [...found];
}

interface Way {
  readonly trust: Trust;
  readonly found: Set<string>;
  /** The scripts that lead there. */
  readonly from: readonly string[];
}

function follow(file: string, { trust, found, from }: Way): void {
  if (from.includes(file)) throw wrong(file, 'its interpreter leads back to it; correct its first line');
  checkWay(file, trust);
  found.add(file);
  const line = firstLineOf(file);
  if (!line) return;
  const { interpreter, argument } = line;
  if (!interpreter.startsWith('/'))
    throw wrong(
      file,
      `its first line names '${interpreter}', which is looked up in whatever folder it runs in; write the full path of the interpreter`,
    );
  const way = { trust, found, from: [...from, file] };
  follow(interpreter, way);
  if (basename(interpreter) === 'env') follow(programOfEnv(file, argument, trust), way);
}

/** As many bytes as the kernel reads of a first line (BINPRM_BUF_SIZE). */
const HEAD_BYTES = 256;

interface FirstLine {
  readonly interpreter: string;
  /** The rest of the line, which is one argument. */
  readonly argument: string;
}

/** As the kernel reads it (fs/binfmt_script.c). Undefined: it is no script, or this user can't read it. */
function firstLineOf(file: string): FirstLine | undefined {
  const bytes = headOf(file);
  // A path is bytes: spaces of other alphabets are a part of it.
  const [, line = '', end = ''] = /^#!([^\n\0]*)([\n\0]?)/.exec(bytes.toString('latin1')) ?? [];
  const [, interpreter, argument = ''] = /^[ \t]*([^ \t]+)[ \t]*(.*?)[ \t]*$/s.exec(line) ?? [];
  if (interpreter === undefined) return undefined;
  if (end === '' && bytes.length === HEAD_BYTES)
    throw wrong(
      file,
      `its first line is longer than the ${HEAD_BYTES} bytes that the kernel reads; shorten it`,
    );
  const decode = (text: string) => Buffer.from(text, 'latin1').toString();
  return { interpreter: decode(interpreter), argument: decode(argument) };
}

function headOf(file: string): Buffer {
  let fd: number | undefined;
  const head = Buffer.alloc(HEAD_BYTES);
  try {
    fd = openSync(file, constants.O_RDONLY | constants.O_NONBLOCK);
    return head.subarray(0, readSync(fd, head));
  } catch {
    return head.subarray(0, 0);
  } finally {
    if (fd !== undefined) closeSync(fd);
  }
}

/** What `#!/usr/bin/env PROGRAM` and `#!/usr/bin/env -S PROGRAM ARGUMENTS` run. */
function programOfEnv(script: string, argument: string, trust: Trust): string {
  const [, split] = /^(?:-S|--split-string=)[ \t]*(.*)$/s.exec(argument) ?? [];
  const program = split === undefined ? argument : (split.split(/[ \t]+/)[0] ?? '');
  if (program === '' || /^-|[='"\\$#]/.test(program))
    throw wrong(
      script,
      `its first line has env run '${argument}', which can't be checked; write the full path of the interpreter instead`,
    );
  if (program.startsWith('/')) return program;
  if (!program.includes('/')) return findIn(script, program, trust);
  throw wrong(
    script,
    `its first line names '${program}', which is looked up in whatever folder it runs in; write its full path`,
  );
}

/** As env(1) finds it. A folder that comes first must not let others put one there. */
function findIn(script: string, program: string, { path, ...reader }: Trust): string {
  for (const folder of path.split(':')) {
    if (!folder.startsWith('/'))
      throw wrong(
        script,
        `its first line looks for ${program} in PATH, and '${folder}' there is not an absolute path; write the full path of the interpreter`,
      );
    checkWay(folder, { ...reader, absent: 'allowed' });
    const file = `${folder}/${program}`;
    if (isProgram(file)) return file;
  }
  throw wrong(
    script,
    `its first line looks for ${program}, which is not in PATH (${path}); install it, or write its full path`,
  );
}

function isProgram(file: string): boolean {
  try {
    accessSync(file, constants.X_OK);
    return statSync(file).isFile();
  } catch {
    return false;
  }
}

function wrong(path: string, why: string): RunlockError {
  return new RunlockError('config', `${path}: ${why}`);
}
