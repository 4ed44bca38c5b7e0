// The file in which a run writes down what it is: what is believed of it, and where it is kept.
import { execFileSync } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import {
  rmdirSync,
  chmodSync,
  chownSync,
  existsSync,
  linkSync,
  lstatSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  rmSync,
  renameSync,
  symlinkSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { describe, expect, test } from 'vitest';
import { MOST_MEMBERS, decodeRunFile, encodeRunFile, openRunFiles } from '../../src/process/run-file.ts';
import { runFolders } from '../../src/process/run-folders.ts';
import type { RunFile } from '../../src/process/run-file.ts';
import { sentenceOf } from '../../src/events/sentence.ts';
import { stage } from '../support/stage.ts';

const uid = process.geteuid?.() ?? 0;
const isRoot = uid === 0;

function fileOf(change: Partial<RunFile> = {}): RunFile {
  const runlock = { pid: 10, startTime: '1' };
  return { run: randomUUID(), bootId: 'boot ns', groups: ['runlock/web'], runlock, nonce: 'abc', ...change };
}

function setUp(...names: string[]) {
  const { folder: top } = stage();
  const folders = (names.length > 0 ? names : ['files']).map((name) => `${top}/${name}`);
  const said: string[] = [];
  const files = openRunFiles({
    folders,
    uid,
    emit: (event) => {
      const { level, message } = sentenceOf(event);
      said.push(`${level} ${message}`);
    },
  });
  return { top, folder: folders[0] ?? '', files, said };
}

describe('what is written', () => {
  test('comes back as it was, from a file that this user alone can read', () => {
    const { files, folder, said } = setUp();
    const process = { pid: 11, startTime: '2' };
    const whole = fileOf({
      ...{ node: 'web01', guard: process, command: process, members: [process] },
      ...{ cgroup: '/sys/fs/cgroup/runlock-1', ended: { outcome: 'failed', exitCode: 3, at: 'now' } },
    });
    files.write(whole);
    expect(files.read(whole.run)).toMatchObject(whole);
    expect(files.list()).toHaveLength(1);
    expect(lstatSync(folder).mode & 0o777).toBe(0o700);
    expect(lstatSync(`${folder}/${whole.run}.json`).mode & 0o777).toBe(0o600);
    expect(readdirSync(folder)).toEqual([`${whole.run}.json`]);
    expect(said).toEqual([]);
  });

  test('replaces what was there as a whole, also where a writer died in its middle', () => {
    const { files, folder } = setUp();
    const first = fileOf();
    files.write(first);
    writeFileSync(`${folder}/.${first.run}`, '{');
    const seen = `${folder}/seen`;
    linkSync(`${folder}/${first.run}.json`, seen);
    files.write({ ...first, node: 'web01' });
    expect(files.read(first.run)).toMatchObject({ node: 'web01' });
    // Whoever had opened the one before still has all of it.
    expect(decodeRunFile(readFileSync(seen, 'utf8'))).toMatchObject(first);
  });

  test('names no more processes than it may have', () => {
    const members = Array.from({ length: MOST_MEMBERS + 10 }, (_, i) => ({
      pid: i + 1,
      startTime: '123456789',
    }));
    const { files, said } = setUp();
    const large = fileOf({ members });
    files.write(large);
    expect(files.read(large.run)?.members).toHaveLength(MOST_MEMBERS);
    expect(said).toEqual([]);
  });

  test('goes to the first folder that can be used; without any, one line says why, no run suffers', () => {
    const { files, top, said } = setUp('missing/files', 'second');
    files.write(fileOf());
    expect(readdirSync(`${top}/second`)).toHaveLength(1);
    expect(said).toEqual([]);
    const none = setUp('missing/files');
    none.files.write(fileOf());
    none.files.write(fileOf());
    expect(none.said).toHaveLength(1);
    expect(none.said[0]).toMatch(/^debug can't record the run on this host: .*missing can't be written/);
    expect(none.files.where()).toHaveProperty('why');
    expect(files.where()).toEqual({ folder: `${top}/second` });
  });

  test('goes into no folder that is a link, or that others can write to', () => {
    const { files, folder, top, said } = setUp();
    mkdirSync(`${top}/elsewhere`, { mode: 0o700 });
    symlinkSync(`${top}/elsewhere`, folder);
    files.write(fileOf());
    expect(readdirSync(`${top}/elsewhere`)).toEqual([]);
    renameSync(folder, `${top}/link`);
    mkdirSync(folder);
    chmodSync(folder, 0o770);
    files.write(fileOf());
    expect(readdirSync(folder)).toEqual([]);
    expect(said.join('\n')).toMatch(/is not a folder[^]*can be written by others/);
  });

  test('is not put where somebody else could take the folder away and put another in its place', () => {
    const { files, top, said } = setUp();
    chmodSync(top, 0o777);
    files.write(fileOf());
    expect(said).toHaveLength(1);
    chmodSync(top, 0o1777);
    files.write(fileOf());
    expect(files.list()).toHaveLength(1);
  });
});

describe('where somebody else has taken the folder’s name first', () => {
  /** Everybody may make something there, as in /tmp. */
  function taken() {
    const it = setUp();
    chmodSync(it.top, 0o1777);
    mkdirSync(it.folder);
    if (isRoot) chownSync(it.folder, 65_534, 65_534);
    else chmodSync(it.folder, 0o777);
    return it;
  }
  const spares = (top: string) => readdirSync(top).filter((name) => /^files-\w{6}$/.test(name));

  test('another one is made, once, and the next run finds what is in it', () => {
    const { files, top, folder, said } = taken();
    const [first, second] = [fileOf(), fileOf()];
    files.write(first);
    files.write(second);
    expect(spares(top)).toHaveLength(1);
    const spare = `${top}/${spares(top).join()}`;
    expect(lstatSync(spare).mode & 0o777).toBe(0o700);
    const next = openRunFiles({ folders: [folder], uid, emit: () => undefined });
    expect(next.read(first.run)).toMatchObject(first);
    expect(next.list()).toHaveLength(2);
    expect(next.where()).toMatchObject({ folder: spare, taken: expect.stringContaining(folder) as string });
    // By whoever wrote it: of a run of its own a runlock knows where it has written to.
    files.remove(first.run);
    next.settle(second.run, 'runlock/web');
    expect(readdirSync(spare)).toEqual([]);
    expect(readdirSync(folder)).toEqual([]);
    expect(said).toEqual([]);
  });

  test('while runlock uses it, nothing more is written there', () => {
    const { files, top, folder } = setUp();
    chmodSync(top, 0o1777);
    const run = fileOf();
    files.write(run);
    rmSync(folder, { recursive: true });
    mkdirSync(folder);
    if (isRoot) chownSync(folder, 65_534, 65_534);
    else chmodSync(folder, 0o777);
    files.write(run);
    expect(readdirSync(folder)).toEqual([]);
    expect(files.read(run.run)).toMatchObject(run);
    files.remove(run.run);
    expect(readdirSync(`${top}/${spares(top).join()}`)).toEqual([]);
  });

  test('what is in it is found, too, when that name is free again', () => {
    const { files, folder } = taken();
    const first = fileOf();
    files.write(first);
    rmdirSync(folder);
    const later = fileOf();
    files.write(later);
    expect(readdirSync(folder)).toEqual([`${later.run}.json`]);
    expect(files.read(first.run)).toMatchObject(first);
    expect(files.where()).toEqual({ folder });
  });

  test('one that somebody else has made under such a name is not believed', () => {
    const { files, top, folder } = taken();
    mkdirSync(`${folder}-aaaaaa`);
    chmodSync(`${folder}-aaaaaa`, 0o777);
    const run = fileOf();
    writeFileSync(`${folder}-aaaaaa/${run.run}.json`, encodeRunFile(run), { mode: 0o600 });
    expect(files.read(run.run)).toBeUndefined();
    files.write(run);
    files.write(fileOf());
    expect(spares(top)).toHaveLength(2);
    expect(readdirSync(`${folder}-aaaaaa`)).toHaveLength(1);
  });

  test('a look alone makes nothing', () => {
    const { files, top, folder } = taken();
    expect(files.where()).toMatchObject({ folder: `${folder}-XXXXXX` });
    expect(files.list()).toEqual([]);
    expect(spares(top)).toEqual([]);
  });
});

describe('what is believed', () => {
  /** One that is good but for what is done to it. */
  function spoilt(spoil: (path: string, folder: string, run: string) => void) {
    const { files, folder, said } = setUp();
    const good = fileOf();
    files.write(good);
    expect(files.read(good.run)).toMatchObject(good);
    spoil(`${folder}/${good.run}.json`, folder, good.run);
    return { read: () => files.read(good.run), list: () => files.list(), said };
  }

  test.each<[string, Parameters<typeof spoilt>[0]]>([
    ['others may write to it', (path) => chmodSync(path, 0o602)],
    ['its group may write to it', (path) => chmodSync(path, 0o620)],
    ['it is huge', (path) => truncateSync(path, 10 * 1024 ** 3)],
    ['it is empty', (path) => truncateSync(path, 0)],
    ['it is no JSON', (path) => writeFileSync(path, '{"v":1')],
    ['it is nested without end', (path) => writeFileSync(path, '['.repeat(500_000))],
    ['it is JSON of another shape', (path) => writeFileSync(path, '{"v":1,"run":{},"runlock":[]}')],
    [
      'it is another version',
      (path) => writeFileSync(path, readFileSync(path, 'utf8').replace('"v":1', '"v":2')),
    ],
    [
      'it is that of another run',
      (path, folder) => writeFileSync(path, encodeRunFile(fileOf({ run: folder.slice(-5) }))),
    ],
    [
      'it is a link',
      (path) => {
        renameSync(path, `${path}.real`);
        symlinkSync(`${path}.real`, path);
      },
    ],
    [
      'it is a FIFO, which nobody reads for ever',
      (path) => {
        renameSync(path, `${path}.real`);
        execFileSync('mkfifo', [path]);
      },
    ],
    [
      'it is a folder',
      (path) => {
        renameSync(path, `${path}.real`);
        mkdirSync(path);
      },
    ],
  ])('nothing of a file when %s; one line says so', (_, spoil) => {
    const { read, list, said } = spoilt(spoil);
    expect(read()).toBeUndefined();
    expect(read()).toBeUndefined();
    expect(list()).toEqual([]);
    expect(said).toHaveLength(1);
    expect(said[0]).toMatch(/^debug ignored .*\.json: /);
  });

  test.runIf(isRoot)('nothing of a file of another user, or in a folder of one', () => {
    const { read, said } = spoilt((path) => chownSync(path, 65_534, 65_534));
    expect(read()).toBeUndefined();
    expect(said[0]).toContain('belongs to user 65534');
    const inside = spoilt((_, folder) => chownSync(folder, 65_534, 65_534));
    expect(inside.read()).toBeUndefined();
    expect(inside.list()).toEqual([]);
  });

  test('a run id that is a path names no file', () => {
    const { files, top } = setUp();
    writeFileSync(`${top}/x.json`, encodeRunFile(fileOf({ run: '../x' })), { mode: 0o600 });
    files.write(fileOf({ run: '../y' }));
    expect(files.read('../x')).toBeUndefined();
    files.remove('../x');
    expect(existsSync(`${top}/x.json`)).toBe(true);
    expect(existsSync(`${top}/y.json`)).toBe(false);
  });

  test.each([
    ['pid 0', { runlock: { pid: 0, startTime: '1' } }],
    ['a pid below 0', { command: { pid: -1, startTime: '1' } }],
    ['a pid that is no number', { guard: { pid: '1', startTime: '1' } }],
    ['a start time that is no number', { command: { pid: 1, startTime: 'x' } }],
    ['too many processes', { members: new Array(MOST_MEMBERS + 1).fill({ pid: 1, startTime: '1' }) }],
    ['a cgroup that is not a run’s', { cgroup: '/sys/fs/cgroup/system.slice' }],
    ['a cgroup by way of another', { cgroup: '/sys/fs/cgroup/../x/runlock-1' }],
    ['a relative cgroup', { cgroup: 'runlock-1' }],
    ['an end without an outcome', { ended: { at: 'now' } }],
    ['groups that are no list', { groups: 'web' }],
  ])('nothing of a file with %s', (_, change) => {
    const text = JSON.stringify({ v: 1, ...fileOf(), ...change });
    expect(decodeRunFile(text)).toBeUndefined();
  });
});

describe('what goes', () => {
  test('the file with the last group whose claim may name the run', () => {
    const { files } = setUp();
    const two = fileOf({ groups: ['runlock/a', 'runlock/b'] });
    files.write(two);
    files.settle(two.run, 'runlock/a');
    expect(files.read(two.run)?.groups).toEqual(['runlock/b']);
    files.settle(two.run, 'runlock/b');
    expect(files.list()).toEqual([]);
    files.settle(two.run, 'runlock/b');
  });

  test('what another boot left, and what is old; not another pid namespace’s, nor what is new', () => {
    const { files, folder } = setUp();
    const make = (run: string, bootId: string, isOld = true) => {
      files.write(fileOf({ run, bootId }));
      const longAgo = Date.now() / 1000 - 3_600;
      if (isOld) utimesSync(`${folder}/${run}.json`, longAgo, longAgo);
    };
    make('other-boot', 'before ns');
    make('over', 'boot ns');
    make('needed', 'boot ns');
    make('other-namespace', 'boot other');
    make('new', 'boot ns', false);
    files.sweep('boot ns', ({ run }) => run !== 'needed');
    const left = files.list().map(({ run }) => run);
    expect(left.sort()).toEqual(['needed', 'new', 'other-namespace']);
  });

  test('what was being written when its runlock was killed long ago; not what may be just now', () => {
    const { files, folder } = setUp();
    files.write(fileOf({ run: 'whole' }));
    const longAgo = Date.now() / 1000 - 3_600;
    for (const name of ['.killed', '.writing', '.not ours']) writeFileSync(`${folder}/${name}`, '');
    for (const name of ['.killed', '.not ours']) utimesSync(`${folder}/${name}`, longAgo, longAgo);
    files.sweep('boot ns', () => true);
    expect(readdirSync(folder).sort()).toEqual(['.not ours', '.writing', 'whole.json']);
  });
});

test('root’s folder is in /run; another user’s in the login’s, also under cron, or in /tmp', () => {
  expect(runFolders(0, '/run/user/1000')).toEqual(['/run/runlock', '/tmp/runlock-0']);
  expect(runFolders(7, undefined)).toEqual(['/run/user/7/runlock', '/tmp/runlock-7']);
  expect(runFolders(7, '/run/user/7/')).toEqual(['/run/user/7/runlock', '/tmp/runlock-7']);
  expect(runFolders(7, '/home/x')).toEqual(['/home/x/runlock', '/run/user/7/runlock', '/tmp/runlock-7']);
  expect(runFolders(7, 'relative')).toEqual(['/run/user/7/runlock', '/tmp/runlock-7']);
});
