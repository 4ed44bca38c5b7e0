import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, chownSync, linkSync, mkdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { listTrusted, readTrusted } from '../../src/platform/trusted-file.ts';
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
    expect(() => readTrusted(path, reader)).toThrow(`${path}: its group or other users can write it`);
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
    expect(() => readTrusted(path, reader)).toThrow(`${open}: its group or other users can write it`);
    expect(() => listTrusted(inner, reader)).toThrow(`${open}: its group or other users can write it`);
    // In a sticky one (/tmp) others can't replace what is not theirs, but anything that stands right in it may be theirs.
    makeFolder('open', 0o1777);
    expect(readTrusted(path, reader).toString()).toBe('text');
    expect(listTrusted(inner, reader)).toEqual(['a']);
    expect(() => readTrusted(put('open/b'), reader)).toThrow(
      `${open}: its group or other users can write it`,
    );
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
    expect(readTrusted(path, { uid, limit: 4 }).toString()).toBe('text');
    expect(() => readTrusted(path, { uid, limit: 3 })).toThrow('it is larger than 3 bytes');
    // Its size is what can be read, whatever stat(2) says.
    expect(() => readTrusted('/proc/version', { uid: 0, limit: 3 })).toThrow('it is larger than 3 bytes');
    expect(() => readTrusted(`${folder}/none`, reader)).toThrow('no such file');
  });
});

/** As fast as a program can, so that some of the swaps fall between any two steps of a read. */
const SWAPPING = `const { linkSync, renameSync } = require('node:fs');
for (;;) for (const name of ['theirs', 'good']) { linkSync(name, 'b'); renameSync('b', 'a'); }`;

test('a file that others put in its place while it is read is never believed', async () => {
  const { folder, put } = place();
  put('good');
  writeFileSync(put('theirs', 0o602), 'theirs');
  const path = `${folder}/a`;
  linkSync(`${folder}/good`, path);
  const swaps = spawn(process.execPath, ['-e', SWAPPING], { cwd: folder, stdio: 'ignore' });
  const seen = new Set<string>();
  try {
    // What is read is what was checked, whichever of them it is. Counted from when both have been met.
    for (let all = 0, met = 0; met < 3_000 && all < 300_000; all += 1) {
      seen.add(reading(path));
      if (seen.size > 1) met += 1;
    }
  } finally {
    swaps.kill('SIGKILL');
    await once(swaps, 'exit');
  }
  expect([...seen].sort()).toEqual(['refused', 'text']);
});

function reading(path: string): string {
  try {
    return readTrusted(path, reader).toString();
  } catch (error) {
    expect(String(error)).toContain('its group or other users can write it');
    return 'refused';
  }
}

describe('a folder', () => {
  test('that is not there has no names; one that is a file says so', () => {
    const { folder, put } = place();
    expect(listTrusted(`${folder}/none`, reader)).toBeUndefined();
    expect(() => listTrusted(put('a'), reader)).toThrow('it is not a folder');
  });
});
