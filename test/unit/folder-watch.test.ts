// What changes in a folder, and another folder in its place, are noticed.
import { mkdirSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { expect, onTestFinished, test } from 'vitest';
import { watchFolder } from '../../src/agent/folder-watch.ts';
import { eventually } from '../support/processes.ts';
import { stage } from '../support/stage.ts';

/** Its clock stands still but for what a test passes. */
function watch(folder: string, onChange = (): void => undefined) {
  const over = new AbortController();
  const sleeps: { readonly ms: number; readonly end: () => void }[] = [];
  let changes = 0;
  const clock = {
    sleep: (ms: number, { signal }: { signal: AbortSignal }) =>
      new Promise<void>((resolve, reject) => {
        const sleep = { ms, end: resolve };
        sleeps.push(sleep);
        signal.addEventListener('abort', () => {
          sleeps.splice(sleeps.indexOf(sleep), 1);
          reject(signal.reason as Error);
        });
        if (signal.aborted) reject(signal.reason as Error);
      }),
  };
  const changed = () => {
    changes += 1;
    onChange();
  };
  const done = watchFolder(clock, { folder, changed }, over.signal);
  onTestFinished(async () => {
    over.abort();
    await done;
  });
  return {
    changes: () => changes,
    /** Resolves once it has slept for as long as it wanted to, for the first time in this state. */
    pass: async (ms: number) => {
      await eventually(() => expect(sleeps.map((each) => each.ms)).toEqual([ms]));
      sleeps.pop()?.end();
    },
    sleepsFor: (ms: number) => eventually(() => expect(sleeps.map((each) => each.ms)).toEqual([ms])),
  };
}

const LOOK_MS = 15_000;
const SETTLE_MS = 200;

test('a file that is written is noticed by the kernel, once it is left alone', async () => {
  const { folder } = stage();
  const { changes, pass, sleepsFor } = watch(folder);
  await sleepsFor(LOOK_MS);
  writeFileSync(`${folder}/a.toml`, 'x');
  await pass(SETTLE_MS);
  await sleepsFor(LOOK_MS);
  expect(changes()).toBe(1);
});

test('what changes before the kernel is asked again is noticed without it', async () => {
  const { folder } = stage();
  let others = 1;
  const { changes, pass, sleepsFor } = watch(folder, () => {
    if (others > 0) writeFileSync(`${folder}/${(others -= 1)}.toml`, 'x');
  });
  await sleepsFor(LOOK_MS);
  writeFileSync(`${folder}/a.toml`, 'x');
  await pass(SETTLE_MS);
  await sleepsFor(LOOK_MS);
  expect(changes()).toBe(2);
});

test('a folder that was missing, and one that is gone, are noticed at the next look', async () => {
  const { folder } = stage();
  const missing = `${folder}/tasks.d`;
  const { changes, pass, sleepsFor } = watch(missing);
  await sleepsFor(LOOK_MS);
  mkdirSync(missing);
  await pass(LOOK_MS);
  await pass(SETTLE_MS);
  await sleepsFor(LOOK_MS);
  expect(changes()).toBe(1);
  rmSync(missing, { recursive: true });
  await pass(SETTLE_MS);
  await sleepsFor(LOOK_MS);
  expect(changes()).toBe(2);
});

test('a link that is turned to another folder is noticed at the next look', async () => {
  const { folder } = stage();
  for (const name of ['a', 'b']) mkdirSync(`${folder}/${name}`);
  const turn = (to: string) => {
    symlinkSync(to, `${folder}/new`);
    renameSync(`${folder}/new`, `${folder}/tasks.d`);
  };
  turn('a');
  const { changes, pass, sleepsFor } = watch(`${folder}/tasks.d`);
  await sleepsFor(LOOK_MS);
  turn('b');
  await pass(LOOK_MS);
  await pass(SETTLE_MS);
  await sleepsFor(LOOK_MS);
  expect(changes()).toBe(1);
});

test('a folder that is put in the place of another is noticed by the kernel', async () => {
  const { folder } = stage();
  for (const name of ['tasks.d', 'new']) mkdirSync(`${folder}/${name}`);
  const { changes, pass, sleepsFor } = watch(`${folder}/tasks.d`);
  await sleepsFor(LOOK_MS);
  renameSync(`${folder}/tasks.d`, `${folder}/old`);
  renameSync(`${folder}/new`, `${folder}/tasks.d`);
  await pass(SETTLE_MS);
  await sleepsFor(LOOK_MS);
  expect(changes()).toBe(1);
});
