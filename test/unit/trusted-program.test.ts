import { chmodSync, chownSync, lchownSync, linkSync, mkdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { checkProgram } from '../../src/agent/task/trusted-program.ts';
import { stage } from '../support/stage.ts';

const uid = process.getuid?.() ?? 0;
const reader = { uid, path: '/usr/bin:/bin' };

function place() {
  const { folder } = stage();
  const put = (name: string, mode = 0o600, text = 'text') => {
    const path = `${folder}/${name}`;
    writeFileSync(path, text);
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
    expect(() => checkProgram(`${folder}/sbin/link`, reader)).toThrow(
      `${folder}/bin: its group or other users`,
    );
  });

  test('that is a script needs an interpreter that nobody else can change either', () => {
    const { folder, put } = place();
    const interpreter = put('interpreter', 0o757);
    for (const line of [`#!${interpreter} -x`, `#! ${interpreter}`, `#!\t${interpreter}\t\n`]) {
      const script = put('script', 0o755, `${line}\n`);
      expect(() => checkProgram(script, reader)).toThrow(`${interpreter}: its group or other users`);
    }
    chmodSync(interpreter, 0o755);
    expect(checkProgram(`${folder}/script`, reader)).toEqual([`${folder}/script`, interpreter]);
  });

  test('whose interpreter is a script is followed to the end, and one that leads back is refused', () => {
    const { folder, put } = place();
    const last = put('0', 0o757);
    // The kernel follows five: each of the files has to be the reader's.
    for (const at of [1, 2, 3, 4, 5]) put(`${at}`, 0o755, `#!${folder}/${at - 1}\n`);
    expect(() => checkProgram(`${folder}/5`, reader)).toThrow(`${last}: its group or other users`);
    chmodSync(last, 0o755);
    expect(checkProgram(`${folder}/5`, reader)).toEqual([5, 4, 3, 2, 1, 0].map((at) => `${folder}/${at}`));
    put('0', 0o755, `#!${folder}/3\n`);
    expect(() => checkProgram(`${folder}/5`, reader)).toThrow(
      `${folder}/3: its interpreter leads back to it; correct its first line`,
    );
  });

  test('may have an interpreter with any characters in its path', () => {
    const { folder, put } = place();
    for (const name of ['größe', 'a\u00a0b', '日本']) {
      const interpreter = put(name, 0o755);
      const script = put('script', 0o755, `#!${interpreter} -x\n`);
      expect(checkProgram(script, reader)).toEqual([script, interpreter]);
    }
    expect(folder).not.toBe('');
  });

  test.each(['#!bin/sh', '#! ./sh', '#!sh -e'])(
    '%s runs what its folder happens to hold: refused',
    (line) => {
      const script = place().put('script', 0o755, `${line}\n`);
      expect(() => checkProgram(script, reader)).toThrow(
        /script: its first line names '\S+', which is looked up in whatever folder it runs in; write the full path/,
      );
    },
  );

  test('with a first line that is longer than what the kernel reads is refused', () => {
    const { put } = place();
    for (const line of [`#!/bin/sh ${'x'.repeat(246)}`, `#!/${'x'.repeat(300)}`])
      expect(() => checkProgram(put('script', 0o755, `${line}\n`), reader)).toThrow(
        'script: its first line is longer than the 256 bytes that the kernel reads; shorten it',
      );
    const short = put('script', 0o755, `#!/bin/sh ${'x'.repeat(245)}\n`);
    expect(checkProgram(short, reader)).toEqual([short, '/bin/sh']);
    // Neither of these has an interpreter: a shell reads them.
    for (const text of ['#!', '#!\n/tmp/x', '', '# !/tmp/x']) {
      const script = put('script', 0o755, text);
      expect(checkProgram(script, reader)).toEqual([script]);
    }
  });

  test('that env looks up in PATH is followed, and no folder before it may be open to others', () => {
    const { folder, put, makeFolder } = place();
    const [first, second] = [makeFolder('first', 0o755), makeFolder('second', 0o755)];
    const tool = put('second/tool', 0o757);
    const script = put('script', 0o755, '#!/usr/bin/env tool\n');
    const path = `${folder}/none:${first}:${second}:/usr/bin`;
    const check = (more = {}) => checkProgram(script, { ...reader, path, ...more });
    expect(() => check()).toThrow(`${tool}: its group or other users`);
    chmodSync(tool, 0o755);
    for (const line of ['env tool', 'env -S tool -x', 'env --split-string=tool -x']) {
      put('script', 0o755, `#!/usr/bin/${line}\n`);
      expect(check()).toEqual([script, '/usr/bin/env', tool]);
    }
    // One that can't be run is not it.
    put('first/tool', 0o644);
    mkdirSync(`${folder}/none`, { mode: 0o755 });
    mkdirSync(`${folder}/none/tool`, { mode: 0o755 });
    expect(check()).toEqual([script, '/usr/bin/env', tool]);
    // Others could put theirs into it, or make it.
    chmodSync(first, 0o1777);
    expect(() => check()).toThrow(`${first}: its group or other users`);
    chmodSync(first, 0o755);
    expect(() => check({ path: `${makeFolder('open', 0o1777)}/none:${second}` })).toThrow(
      `${folder}/open: its group or other users`,
    );
    for (const relative of ['bin', '.', ''])
      expect(() => check({ path: `${relative}:${second}` })).toThrow(
        `script: its first line looks for tool in PATH, and '${relative}' there is not an absolute path`,
      );
    expect(() => check({ path: first })).toThrow(`tool, which is not in PATH (${first}); install it`);
    put('script', 0o755, `#!/usr/bin/env ${tool}\n`);
    expect(check()).toEqual([script, '/usr/bin/env', tool]);
    put('second/other', 0o755, '#!/usr/bin/env tool\n');
    put('script', 0o755, '#!/usr/bin/env other\n');
    expect(check()).toEqual([script, '/usr/bin/env', `${second}/other`, tool]);
  });

  test.each(['', '-i tool', '-S', '-S "tool"', '-S A=1 tool', 'A=1', '-S $X', '-S x\\_y', '-vS tool'])(
    'has env run %j: refused, since that can not be known',
    (argument) => {
      const script = place().put('script', 0o755, `#!/usr/bin/env ${argument}\n`);
      expect(() => checkProgram(script, reader)).toThrow(
        /script: its first line has env run '.*', which can't be/,
      );
    },
  );

  test('right in a folder where anybody may put a file is refused, since it may be a link', () => {
    const { folder, put, makeFolder } = place();
    makeFolder('open/in', 0o755);
    makeFolder('open', 0o1777);
    put('open/in/tool', 0o755);
    expect(() => checkProgram(`${folder}/open/in/tool`, reader)).not.toThrow();
    linkSync(`${folder}/open/in/tool`, `${folder}/open/tool`);
    symlinkSync('in/tool', `${folder}/open/link`);
    for (const name of ['tool', 'link'])
      expect(() => checkProgram(`${folder}/open/${name}`, reader)).toThrow(
        `${folder}/open: its group or other users`,
      );
  });

  test('that others can write, or that a chain of links never reaches, is refused', () => {
    const { folder, put } = place();
    expect(() => checkProgram(put('open', 0o757), reader)).toThrow(
      'open: its group or other users can write it',
    );
    symlinkSync('loop', `${folder}/loop`);
    expect(() => checkProgram(`${folder}/loop`, reader)).toThrow('too many symbolic links on the way to it');
    expect(() => checkProgram(`${folder}/none`, reader)).toThrow('no such file; correct its path');
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
