// What a host has noted of started jobs, and when the agent removes it: never while anything may still need it.
import { execFileSync } from 'node:child_process';
import {
  lutimesSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  renameSync,
  rmSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { oldStarts } from '../../src/agent/old-starts.ts';
import type { OldStartWays } from '../../src/agent/old-starts.ts';
import { writeNote } from '../../src/agent/run-notes.ts';
import { RunlockError } from '../../src/errors.ts';
import { jobText, requestKeys } from '../../src/jobs/keys.ts';
import type { JobRef } from '../../src/jobs/keys.ts';
import { ledgerFile, noteEnd, noteStart, readLedger } from '../../src/jobs/ledger.ts';
import type { LedgerEnd, LedgerEntry } from '../../src/jobs/ledger.ts';
import { nowMs } from '../support/jobs.ts';
import { memoryConsul } from '../support/memory-consul.ts';
import { stage } from '../support/stage.ts';

const DAY_MS = 86_400_000;
const daysAgo = (days: number) => new Date(nowMs - days * DAY_MS).toISOString();
const end = { state: 'good', endedAt: daysAgo(3) } as const;
const refOf = (id: string, principal = 'ops') => ({ principal, id });
const specOf = ({ principal, id }: JobRef) => requestKeys('p', principal).spec(id);

interface Started extends Partial<Omit<LedgerEntry, 'node'>> {
  readonly ended?: LedgerEnd | null;
  readonly principal?: string;
}

function world({ hidden = 'nothing' }: { readonly hidden?: string } = {}) {
  const { folder } = stage();
  const memory = memoryConsul(undefined, (key) => key.includes(hidden));
  const asked: string[] = [];
  const slept: number[] = [];
  const alive = new Set<string>();
  const living = new Set<string>();
  /** While Consul answers. */
  let meanwhile = (): unknown => undefined;
  const consul: OldStartWays['consul'] = {
    ...memory.consul,
    get: async (key, options) => {
      asked.push(key);
      const answer = await memory.consul.get(key, options);
      await meanwhile();
      return answer;
    },
  };
  const over = new AbortController();
  const sleep = (ms: number) => {
    slept.push(ms);
    if (ms > DAY_MS / 2) over.abort();
    return over.signal.aborted ? Promise.reject(new Error('over')) : Promise.resolve();
  };
  const survivors = (run: string) => {
    if (run === 'unknown') throw new RunlockError('bug', 'no /proc');
    return { pids: living.has(run) ? [1] : [], guarded: false };
  };
  const ways = {
    ...{ consul, prefix: 'p', state: { path: folder } },
    runs: { isAlive: (ref: JobRef) => alive.has(jobText(ref)) },
    deps: {
      clock: { earliest: () => nowMs, now: () => nowMs + 90 * DAY_MS, sleep },
      random: () => 0.5,
      host: { bootId: 'b1 ns', survivors },
    },
  } as unknown as OldStartWays;
  /** One that may go, but for `more`; `ended: null`: its end is not noted. */
  const started = (id: string, { ended = end, principal = 'ops', ...more }: Started = {}) => {
    const ref = refOf(id, principal);
    const entry = {
      nonce: 'n',
      node: 'web01',
      run: id,
      bootId: 'b1 ns',
      startedAt: daysAgo(40),
      until: daysAgo(1.01),
    };
    noteStart(folder, ref, { ...entry, ...more });
    if (ended) noteEnd(folder, ref, { run: id, end: ended });
  };
  return {
    ...{ folder, memory, asked, slept, alive, living, started },
    during: (act: () => unknown) => (meanwhile = act),
    look: () =>
      oldStarts(ways)
        .run(over.signal)
        .catch((error: unknown) => error),
    left: (principal = 'ops') => readdirSync(join(folder, 'jobs', principal)).sort(),
  };
}

describe('what was started here', () => {
  test('goes when the request is gone, its end is a day past, and its run has ended', async () => {
    const { memory, asked, started, look, left } = world();
    for (const id of ['gone', 'there']) started(id);
    memory.put(specOf(refOf('there')), 'whatever it is');
    await look();
    expect(left()).toEqual(['there']);
    expect(asked).toEqual([specOf(refOf('gone')), specOf(refOf('there'))]);
  });

  test('stays until a day after the end of the request, and Consul is not asked before', async () => {
    const { asked, started, look, left } = world();
    started('past');
    started('today', { until: daysAgo(0.99) });
    started('coming', { until: daysAgo(-3) });
    await look();
    expect(left()).toEqual(['coming', 'today']);
    expect(asked).toEqual([specOf(refOf('past'))]);
  });

  test('without an end of the request, which older versions did not note, stays for 32 days', async () => {
    const { folder, started, look, left } = world();
    for (const [id, days] of [
      ['new', 31.9],
      ['old', 32.1],
    ] as const) {
      started(id, { startedAt: daysAgo(days) });
      const file = ledgerFile(folder, refOf(id));
      const { until, ...older } = JSON.parse(readFileSync(file, 'utf8')) as LedgerEntry;
      expect(until).toBe(daysAgo(1.01));
      writeFileSync(file, JSON.stringify(older));
    }
    await look();
    expect(left()).toEqual(['new']);
  });

  test('stays while its run may go on: on this boot, that is', async () => {
    const { alive, living, started, look, left } = world();
    const rebooting = { state: 'rebooting', endedAt: daysAgo(3) } as const;
    for (const id of ['killed', 'lives', 'unknown']) started(id, { ended: null });
    started('lived', { ended: null, bootId: 'b0 ns' });
    started('reboots', { ended: rebooting });
    started('rebooted', { ended: rebooting, bootId: 'b0 ns' });
    started('other-ns', { bootId: 'b1 other' });
    started('process');
    started('lives-elsewhere', { ended: null, bootId: 'b1 other' });
    for (const run of ['lives', 'lived', 'lives-elsewhere', 'reboots']) living.add(run);
    alive.add('ops/process');
    await look();
    expect(left()).toEqual(['lives', 'lives-elsewhere', 'process', 'reboots', 'unknown']);
  });

  test('stays if the token may not see the request; the principal’s others are not asked for', async () => {
    const { asked, started, look, left } = world({ hidden: '/ops/' });
    for (const id of ['a', 'b']) started(id);
    started('theirs', { principal: 'web' });
    await look();
    expect(left()).toEqual(['a', 'b']);
    expect(asked).toEqual([specOf(refOf('a')), specOf(refOf('theirs', 'web'))]);
  });

  test('stays if Consul does not answer: the part is tried again', async () => {
    const { during, started, look, left } = world();
    started('a');
    during(() => Promise.reject(new RunlockError('unreachable', 'no answer')));
    expect(await look()).toMatchObject({ message: 'no answer' });
    expect(left()).toEqual(['a']);
  });

  test('stays if the name became another request’s while Consul answered', async () => {
    const { folder, alive, during, started, look } = world();
    for (const id of ['anew', 'begins']) started(id);
    during(() => {
      alive.add('ops/begins');
      rmSync(ledgerFile(folder, refOf('anew')));
      started('anew', { nonce: 'n2', run: 'r2' });
    });
    await look();
    expect(readLedger(folder, refOf('anew'))).toMatchObject({ entry: { nonce: 'n2' } });
    expect(readLedger(folder, refOf('begins'))).toMatchObject({ kind: 'started' });
  });

  test('stays if it can’t be read, and is no link, pipe, or file of another name', async () => {
    const { folder, asked, started, look, left } = world();
    const { folder: elsewhere } = stage();
    started('real');
    const jobs = join(folder, 'jobs');
    renameSync(join(jobs, 'ops'), join(elsewhere, 'ops'));
    // Neither behind the folder of a principal, nor behind a file.
    symlinkSync(join(elsewhere, 'ops'), join(jobs, 'linked'));
    mkdirSync(join(jobs, 'ops'));
    symlinkSync(join(elsewhere, 'ops/real'), join(jobs, 'ops/link'));
    symlinkSync(join(elsewhere, 'ops/real'), join(jobs, 'ops/link.new'));
    writeFileSync(join(jobs, 'ops/rubbish'), 'rubbish');
    writeFileSync(join(jobs, 'ops/Other.txt'), 'x');
    writeFileSync(join(jobs, 'file'), 'x');
    execFileSync('mkfifo', [join(jobs, 'ops/pipe')]);
    const odd = { v: 1, nonce: 'n', run: 'r', bootId: 'b0', startedAt: daysAgo(90), until: 'soon' };
    writeFileSync(join(jobs, 'ops/odd'), JSON.stringify(odd));
    const names = ['Other.txt', 'link', 'link.new', 'odd', 'pipe', 'rubbish'];
    for (const name of names) lutimesSync(join(jobs, 'ops', name), 0, 0);
    expect(await look()).toMatchObject({ message: 'over' });
    expect(left()).toEqual(names);
    expect(readdirSync(join(elsewhere, 'ops'))).toEqual(['real']);
    expect(readdirSync(jobs).sort()).toEqual(['file', 'linked', 'ops']);
    expect(asked).toEqual([]);
  });

  test('is not looked for behind a link instead of the whole folder', async () => {
    const { folder, started, look } = world();
    const { folder: elsewhere } = stage();
    started('real');
    renameSync(join(folder, 'jobs'), join(elsewhere, 'jobs'));
    symlinkSync(join(elsewhere, 'jobs'), join(folder, 'jobs'));
    await look();
    expect(readdirSync(join(elsewhere, 'jobs/ops'))).toEqual(['real']);
  });
});

describe('with it', () => {
  test('go drafts that are a day old, and folders that are empty', async () => {
    const { folder, started, look, left } = world();
    started('a');
    started('theirs', { principal: 'web' });
    for (const [name, days] of [
      ['a.new', 1.01],
      ['b.new', 0.99],
      ['a.b.new', 9],
    ] as const) {
      const file = join(folder, 'jobs/ops', name);
      writeFileSync(file, '');
      utimesSync(file, (nowMs - days * DAY_MS) / 1_000, (nowMs - days * DAY_MS) / 1_000);
    }
    await look();
    expect(left()).toEqual(['a.b.new', 'b.new']);
    expect(readdirSync(join(folder, 'jobs'))).toEqual(['ops']);
  });

  test('goes no folder that a process is about to write in', async () => {
    const { folder, alive, started, look, left } = world();
    started('a');
    const note = { mark: 'm', bootId: 'b1 ns', nonce: 'n', tries: 1, at: daysAgo(0) };
    writeNote(folder, refOf('next'), note);
    alive.add('ops/next');
    await look();
    expect(left()).toEqual([]);
  });
});

test('it looks at a hundred files, rests, and looks again in a day; without the folder, too', async () => {
  const { slept, started, look, left } = world();
  for (let i = 0; i < 205; i += 1) started(`j${i}`, i < 200 ? { until: daysAgo(-1) } : {});
  await look();
  expect(slept).toEqual([1_000, 1_000, DAY_MS]);
  expect(left()).toHaveLength(200);
  const none = world();
  await none.look();
  expect(none.slept).toEqual([DAY_MS]);
});
