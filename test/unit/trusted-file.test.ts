import { spawnSync } from 'node:child_process';
import { chmodSync, chownSync, lchownSync, mkdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { checkProgram, listTrusted, readTrusted } from '../../src/agent/task/trusted-file.ts';
import { stage } from '../support/stage.ts';

const uid = process.getuid?.() ?? 0;
const reader = { uid, limit: 100 };

function place() {
  const { folder } = stage();
  const put = (name: string, mode = 0o600) => {
    const path = `${folder}/${name}`;
    writeFileSync(path, 'text');
    chmodSync(path, mode);
    return path;
  };
  const makeFolder = (name: string, mode: number) => {
    mkdirSync(`${folder}/${name}`, { recursive: true });
    chmodSync(`${folder}/${name}`, mode);
    return `${folder}/${name}`;
  };
  return { folder, put, makeFolder };
}

/** Gives what is there to somebody else; who is not root looks at it as somebody else. */
function ofAnother(path: string) {
  if (uid !== 0) return { ...reader, uid: uid + 1 };
  chownSync(path, 12_345, 12_345);
  return reader;
}

describe('a file', () => {
  test('that only its owner can write is read', () => {
    expect(readTrusted(place().put('a', 0o644), reader).toString()).toBe('text');
  });

  test.each([
    ['its group can write', 0o620],
    ['everybody can write', 0o602],
  ])('that %s is refused', (_, mode) => {
    const path = place().put('a', mode);
    expect(() => readTrusted(path, reader)).toThrow(`${path}: others than its owner can write it`);
  });

  test('that belongs to somebody else is refused', () => {
    const path = place().put('a');
    expect(() => readTrusted(path, ofAnother(path))).toThrow(
      /: it belongs to user \d+, so .*; run chown root /,
    );
  });

  test('in a folder that others can write is refused, though the file itself is not', () => {
    const { put, makeFolder } = place();
    const open = makeFolder('open', 0o777);
    const inner = makeFolder('open/in', 0o755);
    const path = put('open/in/a');
    expect(() => readTrusted(path, reader)).toThrow(`${open}: others than its owner can write it`);
    expect(() => listTrusted(inner, reader)).toThrow(`${open}: others than its owner can write it`);
    // In a sticky one (/tmp) others can't replace what is not theirs, but anything that stands right in it may be theirs.
    makeFolder('open', 0o1777);
    expect(readTrusted(path, reader).toString()).toBe('text');
    expect(listTrusted(inner, reader)).toEqual(['a']);
    expect(() => readTrusted(put('open/b'), reader)).toThrow(`${open}: others than its owner can write it`);
  });

  test('that is a link, a pipe, a folder, too large, or missing is refused', () => {
    const { folder, put, makeFolder } = place();
    const path = put('a');
    symlinkSync(path, `${folder}/link`);
    expect(() => readTrusted(`${folder}/link`, reader)).toThrow(
      'it is a symbolic link; put the file itself there',
    );
    symlinkSync(folder, `${folder}/way`);
    expect(() => readTrusted(`${folder}/way/a`, reader)).toThrow(`${folder}/way: it is a symbolic link`);
    expect(spawnSync('mkfifo', [`${folder}/pipe`]).status).toBe(0);
    expect(() => readTrusted(`${folder}/pipe`, reader)).toThrow('it is not a regular file');
    expect(() => readTrusted(makeFolder('in', 0o755), reader)).toThrow('it is not a regular file');
    expect(() => readTrusted(path, { uid, limit: 3 })).toThrow('it is larger than 3 bytes');
    expect(() => readTrusted(`${folder}/none`, reader)).toThrow('no such file');
  });
});

describe('a folder', () => {
  test('that is not there has no names; one that is a file says so', () => {
    const { folder, put } = place();
    expect(listTrusted(`${folder}/none`, reader)).toBeUndefined();
    expect(() => listTrusted(put('a'), reader)).toThrow('it is not a folder');
  });
});

describe('a program', () => {
  test('may be reached by links, as long as nobody else can change one of them or what it leads to', () => {
    const { folder, put, makeFolder } = place();
    makeFolder('bin', 0o755);
    put('bin/real', 0o755);
    symlinkSync('bin', `${folder}/sbin`);
    symlinkSync('./../bin/real', `${folder}/bin/link`);
    for (const way of ['bin/real', 'bin/link', 'sbin/link', 'sbin/../sbin/./link'])
      expect(() => checkProgram(`${folder}/${way}`, reader)).not.toThrow();
    expect(() => checkProgram('/bin/sh', reader)).not.toThrow();
    makeFolder('bin', 0o775);
    expect(() => checkProgram(`${folder}/sbin/link`, reader)).toThrow(`${folder}/bin: others than its owner`);
  });

  test('that is a script needs an interpreter that nobody else can change either', () => {
    const { folder, put } = place();
    const interpreter = put('interpreter', 0o757);
    for (const line of [`#!${interpreter} -x`, `#! ${interpreter}`]) {
      writeFileSync(put('script', 0o755), `${line}\n`);
      expect(() => checkProgram(`${folder}/script`, reader)).toThrow(`${interpreter}: others than its owner`);
    }
    chmodSync(interpreter, 0o755);
    expect(() => checkProgram(`${folder}/script`, reader)).not.toThrow();
    // One that runs itself is the kernel's to refuse.
    writeFileSync(interpreter, `#!${interpreter}\n`);
    expect(() => checkProgram(`${folder}/script`, reader)).not.toThrow();
  });

  test('that others can write, or that a chain of links never reaches, is refused', () => {
    const { folder, put } = place();
    expect(() => checkProgram(put('open', 0o757), reader)).toThrow(
      'open: others than its owner can write it',
    );
    symlinkSync('loop', `${folder}/loop`);
    expect(() => checkProgram(`${folder}/loop`, reader)).toThrow('too many symbolic links on the way to it');
    expect(() => checkProgram(`${folder}/none`, reader)).toThrow('no such program; correct its path');
    symlinkSync('/bin/sh', `${folder}/link`);
    if (uid === 0) lchownSync(`${folder}/link`, 12_345, 12_345);
    const stranger = uid === 0 ? reader : { ...reader, uid: uid + 1 };
    expect(() => checkProgram(`${folder}/link`, stranger)).toThrow(/it belongs to user \d+/);
    const path = put('theirs', 0o755);
    symlinkSync(path, `${folder}/to-theirs`);
    const other = ofAnother(path);
    expect(() => checkProgram(`${folder}/to-theirs`, other)).toThrow(/it belongs to user \d+/);
  });
});
