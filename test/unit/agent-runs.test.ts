// The notes of processes that an agent starts: found again by the next agent, whenever the one before it died.
import { spawn } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, utimesSync, writeFileSync } from 'node:fs';
import { describe, expect, onTestFinished, test } from 'vitest';
import { MARK, livingOf, notedJobs, readNote, removeNote, writeNote } from '../../src/agent/run-notes.ts';
import { openRuns } from '../../src/agent/runs.ts';
import { takeFolder } from '../../src/jobs/folder-node.ts';
import { startTime } from '../../src/process/process-tree.ts';
import { end, eventually } from '../support/processes.ts';
import { stage } from '../support/stage.ts';

const uid = process.getuid?.() ?? 0;
const host = { bootId: 'boot', startTime };
const ref = { principal: 'ops', id: 'j1' };
const note = { mark: 'm1', bootId: 'boot', nonce: 'n1', tries: 1, at: '2026-03-01T12:00:00.000Z' };

function sleeper(mark: string): number {
  const child = spawn('sleep', ['60'], { env: { [MARK]: mark }, stdio: 'ignore' });
  onTestFinished(() => end(child.pid ?? 0));
  return child.pid ?? 0;
}

describe('a note', () => {
  test('is read as it was written, by job; what is not one is nothing', () => {
    const { folder } = stage();
    writeNote(folder, ref, note);
    expect(readNote(folder, ref, uid)).toMatchObject(note);
    expect(notedJobs(folder, 'ops')).toEqual([ref]);
    expect(notedJobs(folder, '../ops')).toEqual([]);
    for (const text of [
      '',
      'x',
      '{}',
      JSON.stringify({ ...note, mark: '' }),
      JSON.stringify({ ...note, tries: 'x' }),
      JSON.stringify({ ...note, ended: null }),
      JSON.stringify({ ...note, ended: { code: 'x', said: '' } }),
      JSON.stringify({ ...note, ended: { code: 1 } }),
    ]) {
      writeFileSync(`${folder}/runs/ops/j1.json`, text);
      expect(readNote(folder, ref, uid)).toBeUndefined();
    }
    removeNote(folder, ref);
    expect(existsSync(`${folder}/runs/ops/j1.json`)).toBe(false);
  });

  test('that was written before its process is of the one that carries its secret', async () => {
    const mark = `mark-${process.pid}`;
    expect(livingOf({ ...note, mark }, host)).toBeUndefined();
    const pid = sleeper(mark);
    await eventually(() => expect(livingOf({ ...note, mark }, host)).toBe(pid));
    expect(livingOf({ ...note, mark: `${mark}x` }, host)).toBeUndefined();
    expect(livingOf({ ...note, mark: mark.slice(0, -1) }, host)).toBeUndefined();
  });

  test('of a process that lives is believed only with its start time, and in its boot', () => {
    const pid = process.pid;
    const born = startTime(pid) ?? '';
    expect(livingOf({ ...note, process: { pid, startTime: born } }, host)).toBe(pid);
    expect(livingOf({ ...note, process: { pid, startTime: '1' } }, host)).toBeUndefined();
    expect(livingOf({ ...note, bootId: 'other', process: { pid, startTime: born } }, host)).toBeUndefined();
  });
});

describe('runs', () => {
  function setUp(program = '/bin/sleep', words: readonly string[] = []) {
    const { folder } = stage();
    let nowMs = Date.parse(note.at);
    const events: unknown[] = [];
    const runs = openRuns(
      {
        ...{
          self: [program, ...words],
          env: { PATH: process.env['PATH'], RUNS: `${folder}/runs` },
          uid,
          logFolder: `${folder}/log`,
          stateFolder: folder,
        },
        ...{
          flags: [],
          host,
          emit: (event: unknown) => void events.push(event),
          newMark: () => crypto.randomUUID(),
        },
        clock: {
          now: () => nowMs,
          sleep: () => new Promise((resolve) => setTimeout(resolve, 10)),
        },
      },
      { prefix: 'rl', node: 'web01' },
    );
    return { folder, runs, events, pass: (ms: number) => (nowMs += ms) };
  }
  const request = { ref, nonce: 'n1', task: 't', params: { v: 'x' } };
  const { signal } = new AbortController();

  test('are not started from the folder of another node', () => {
    const { folder, runs } = setUp('/bin/false');
    takeFolder(folder, 'web02');
    expect(() => runs.start(request)).toThrow(/belongs to node web02, and this is node web01/);
    expect(readdirSync(folder)).toEqual(['node']);
  });

  test('are noted, awaited, and tried again later each time; another request at once', async () => {
    const { folder, runs } = setUp('/bin/false');
    expect(runs.notBeforeMs(ref, 'n1')).toBe(0);
    const pauses: number[] = [];
    for (let tries = 1; tries <= 11; tries += 1) {
      runs.start(request);
      await runs.ended(ref, { signal });
      expect(readNote(folder, ref, uid)?.tries).toBe(tries);
      pauses.push((runs.notBeforeMs(ref, 'n1') - Date.parse(note.at)) / 1_000);
    }
    expect(pauses).toEqual([1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
    expect(runs.notBeforeMs(ref, 'n2')).toBe(0);
  });

  test('are tried again at once where the clock was set back to before them', async () => {
    const { runs, pass } = setUp('/bin/false');
    runs.start(request);
    await runs.ended(ref, { signal });
    expect(runs.notBeforeMs(ref, 'n1')).toBeGreaterThan(0);
    pass(-3_600_000);
    expect(runs.notBeforeMs(ref, 'n1')).toBe(0);
  });

  test.each([
    [78, 'runlock: no task t in /x', 'no task t in /x', true],
    [64, '', 'exit status 64', true],
    [126, 'not executable', 'not executable', true],
    [127, 'not found', 'not found', true],
    [69, '{"time":"T","level":"error","message":"no Consul"}', 'no Consul (exit status 69)', false],
    [75, '{"message":"of the command"}', '{"message":"of the command"} (exit status 75)', false],
    [77, 'forbidden', 'forbidden (exit status 77)', false],
    [81, 'stopped', 'stopped (exit status 81)', false],
    [0, 'fine', 'fine (exit status 0)', false],
  ])(
    'that end with %i say what they said, and whether another try can do better',
    async (code, said, text, isUnfit) => {
      const { folder, runs, events } = setUp('/bin/sh', ['-c', `echo; echo '${said}' >&2; exit ${code}`]);
      runs.start(request);
      expect(runs.lastEnd(request)).toBeUndefined();
      await runs.ended(ref, { signal });
      expect(runs.lastEnd(request)).toEqual({ text, isUnfit });
      expect(runs.lastEnd({ ...request, nonce: 'n2' })).toBeUndefined();
      expect(readNote(folder, ref, uid)?.process).toBeDefined();
      const log = `${folder}/log/ops/j1.t.log`;
      expect(events).toMatchObject([{ event: 'agent-run-ended', job: 'ops/j1', task: 't', code, log }]);
    },
  );

  test('that a signal ended, or of which another agent has not seen the end, say so', async () => {
    const { folder, runs, events } = setUp('/bin/sh', ['-c', 'echo last words; kill -9 $$']);
    runs.start(request);
    await runs.ended(ref, { signal });
    expect(runs.lastEnd(request)).toEqual({ text: 'last words (killed by SIGKILL)', isUnfit: false });
    expect(events).toMatchObject([{ signal: 'SIGKILL', said: 'last words' }]);
    writeNote(folder, ref, { ...note, process: { pid: process.pid, startTime: '1' } });
    expect(runs.lastEnd(request)?.text).toBe('last words (how it ended is not known)');
  });

  test('whose end can not be noted, as on a full disk, end all the same', async () => {
    const noted = 'until grep -q startTime $RUNS/ops/j1.json; do sleep 0.01; done';
    const { runs, events } = setUp('/bin/sh', ['-c', `${noted}; rm -rf $RUNS; touch $RUNS; exit 3`]);
    runs.start(request);
    await runs.ended(ref, { signal });
    expect(events).toMatchObject([{ event: 'agent-run-ended', code: 3 }]);
    expect(runs.isAlive(ref)).toBe(false);
  });

  test('to which systemd has refused a scope once are tried without one from then on', async () => {
    const { folder, runs } = setUp('/bin/sh', ['-c', 'echo "Failed to start transient scope unit"; exit 1']);
    const scopeless = () => readNote(folder, ref, uid)?.scopeless;
    runs.start(request);
    await runs.ended(ref, { signal });
    expect(scopeless()).toBeUndefined();
    runs.start(request);
    await runs.ended(ref, { signal });
    expect(scopeless()).toBe(true);
    // Without a scope its end says nothing of scopes.
    writeNote(folder, ref, { ...note, scopeless: true, ended: { code: 75, said: 'busy' } });
    runs.start(request);
    expect(scopeless()).toBe(true);
    await runs.ended(ref, { signal });
  });

  test('are one for each request; the next agent finds it, and hears of its end', async () => {
    const { folder, runs } = setUp('/bin/cat');
    writeNote(folder, ref, {
      ...note,
      process: { pid: process.pid, startTime: startTime(process.pid) ?? '' },
    });
    expect(runs.isAlive(ref)).toBe(true);
    expect(() => runs.start(request)).toThrow(/is there already/);
    runs.forgetOthers('ops', new Set());
    expect(readNote(folder, ref, uid)).toBeDefined();
    const pid = sleeper('m2');
    writeNote(folder, ref, { ...note, process: { pid, startTime: startTime(pid) ?? '' } });
    const over = runs.ended(ref, { signal });
    end(pid);
    await over;
    runs.forgetOthers('ops', new Set(['j1']));
    expect(readNote(folder, ref, uid)).toBeDefined();
    runs.forgetOthers('ops', new Set());
    expect(readNote(folder, ref, uid)).toBeUndefined();
  });

  const chef = { principal: '.triggers', id: 'chef' };
  const logs = ['20260301T120000.000Z.chef.log', '20260301T120003.000Z.chef.log'];

  test('that a change has started have a log each, by time', async () => {
    const { folder, runs, pass } = setUp('/bin/false');
    // Another try for the same change is no other run.
    for (const nonce of ['1', '1', '2']) {
      runs.start({ ref: chef, nonce, task: 'chef', params: {}, triggered: true });
      await runs.ended(chef, { signal });
      pass(1_500);
    }
    expect(readdirSync(`${folder}/log/triggers`)).toEqual(logs);
  });

  test('keep the log that they write, however old it is', async () => {
    const { folder, runs } = setUp('/bin/false');
    const [old = '', live = ''] = logs.map((name) => `${folder}/log/triggers/${name}`);
    mkdirSync(`${folder}/log/triggers`, { recursive: true });
    // The older one would go first.
    [live, old].forEach((file, at) => {
      writeFileSync(file, '');
      utimesSync(file, at, at);
    });
    const pid = sleeper('m4');
    const living = { pid, startTime: startTime(pid) ?? '' };
    writeNote(folder, chef, { ...note, since: '2026-03-01T12:00:03.000Z', process: living });
    expect(runs.isAlive(chef)).toBe(true);
    runs.start(request);
    await eventually(() => expect(existsSync(old)).toBe(false));
    await runs.ended(ref, { signal });
    expect(existsSync(live)).toBe(true);
    end(pid);
  });

  test('are at most eight at once, the oldest first', async () => {
    const { folder, runs } = setUp();
    const pid = sleeper('m3');
    const living = { pid, startTime: startTime(pid) ?? '' };
    for (let i = 0; i < 8; i += 1) {
      writeNote(folder, { principal: 'ops', id: `j${i}` }, { ...note, process: living });
      expect(runs.isAlive({ principal: 'ops', id: `j${i}` })).toBe(true);
    }
    const order: number[] = [];
    const waits = [9, 3, 5].map((each) => runs.room(each, { signal }).then(() => order.push(each)));
    await new Promise((resolve) => setImmediate(resolve));
    expect(order).toEqual([]);
    end(pid);
    await Promise.all([0, 1, 2].map((i) => runs.ended({ principal: 'ops', id: `j${i}` }, { signal })));
    await Promise.all(waits);
    expect(order).toEqual([3, 5, 9]);
  });
});
