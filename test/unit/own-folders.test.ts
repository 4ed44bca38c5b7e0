// The folders of an agent: what can never do is refused, and what others could change.
import { chmodSync, existsSync, mkdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { checkFolders, checkIsFolder, makeLogFolder } from '../../src/agent/own-folders.ts';
import { stage } from '../support/stage.ts';

const reader = { uid: process.getuid?.() ?? 0 };

function folders() {
  const { folder } = stage();
  const [stateDir, logDir] = [`${folder}/state`, `${folder}/log`];
  mkdirSync(stateDir);
  mkdirSync(logDir);
  return { folder, stateDir, logDir };
}

test('folders that are there, or can be made, will do', () => {
  const { folder, ...both } = folders();
  expect(() => checkFolders(both, reader)).not.toThrow();
  expect(() => checkFolders({ stateDir: `${folder}/a/b`, logDir: `${folder}/c` }, reader)).not.toThrow();
  expect(existsSync(`${folder}/a`)).toBe(false);
  symlinkSync(both.logDir, `${folder}/linked`);
  expect(() => checkFolders({ ...both, logDir: `${folder}/linked` }, reader)).not.toThrow();
});

test.each([
  ['stateDir', '--state-dir'],
  ['logDir', '--log-dir'],
] as const)('what can never be a folder is refused as %s', (which, option) => {
  const { folder, ...both } = folders();
  writeFileSync(`${folder}/file`, '');
  symlinkSync('loop', `${folder}/loop`);
  for (const path of [`${folder}/file`, `${folder}/file/below`, `${folder}/loop`]) {
    const refused = { code: 'config', message: `${path}: it is not a folder; name a folder with ${option}` };
    expect(() => checkFolders({ ...both, [which]: path }, reader)).toThrow(expect.objectContaining(refused));
    expect(() => checkIsFolder(option, path)).toThrow(expect.objectContaining(refused));
  }
});

test.each(['stateDir', 'logDir'] as const)('one that others can write is refused as %s', (which) => {
  for (const mode of [0o777, 0o1777, 0o775]) {
    const { stateDir, logDir } = folders();
    const path = { stateDir, logDir }[which];
    chmodSync(path, mode);
    expect(() => checkFolders({ stateDir, logDir }, reader)).toThrow(
      `${path}: its group or other users can write it; run chmod go-w ${path}`,
    );
  }
});

test('a log folder below one that all can write is refused; groups may write above it', () => {
  const { folder, ...both } = folders();
  chmodSync(folder, 0o775);
  expect(() => makeLogFolder(both.logDir, `${both.logDir}/ops`, reader)).not.toThrow();
  chmodSync(folder, 0o777);
  expect(() => makeLogFolder(both.logDir, `${both.logDir}/ops`, reader)).toThrow(
    `${folder}: other users can write it; run chmod o-w ${folder}`,
  );
});

test('the folder of a principal is made once, is no link or file, and others can not write it', () => {
  const { folder, logDir } = folders();
  const ops = `${folder}/log/ops`;
  const make = (name: string) => () => makeLogFolder(logDir, `${logDir}/${name}`, reader);
  expect(make('ops')).not.toThrow();
  expect(make('ops')).not.toThrow();
  chmodSync(ops, 0o777);
  expect(make('ops')).toThrow(`run chmod go-w ${ops}`);
  mkdirSync(`${folder}/secret`);
  symlinkSync(`${folder}/secret`, `${logDir}/ci`);
  expect(make('ci')).toThrow(`${logDir}/ci: it is a symbolic link; put the folder itself there`);
  writeFileSync(`${logDir}/web`, '');
  expect(make('web')).toThrow('it is not a folder');
  chmodSync(logDir, 0o777);
  expect(make('new')).toThrow(`run chmod go-w ${logDir}`);
  expect(existsSync(`${logDir}/new`)).toBe(false);
});
