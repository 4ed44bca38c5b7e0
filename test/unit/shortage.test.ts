import { describe, expect, test } from 'vitest';
import { classify } from '../../src/consul/faults.ts';
import { requireProc } from '../../src/process/host.ts';
import { shortageIn, shortageOf } from '../../src/platform/shortage.ts';

const failing = (code: string) => Object.assign(new Error(`${code}: no, open '/proc/1/stat'`), { code });

test.each([
  ['EMFILE', /too many open files.*ulimit -n/],
  ['ENFILE', /too many open files.*fs\.file-max/],
  ['EAGAIN', /too many processes.*ulimit -u/],
  ['ENOMEM', /out of memory.*free some/],
])('%s says what was short, and what to do', (code, says) => {
  expect(shortageOf(code)).toMatch(says);
  expect(shortageIn(new Error('outside', { cause: failing(code) }))).toMatch(says);
  expect(classify(failing(code), { address: 'here' }).message).toMatch(says);
});

test('what is no shortage is none', () => {
  for (const error of [failing('ENOENT'), failing('toString'), 'EMFILE', undefined])
    expect(shortageIn(error)).toBeUndefined();
});

describe('/proc', () => {
  test('of this pid namespace is right', () => {
    expect(() => requireProc(process.pid)).not.toThrow();
  });

  test('of another one, or none, is a fault of the host', () => {
    expect(() => requireProc(7, () => '4711')).toThrow(
      /another pid namespace \(runlock is pid 7, \/proc says 4711\)/,
    );
    const missing = () => {
      throw failing('ENOENT');
    };
    expect(() => requireProc(7, missing)).toThrow(/\/proc can't be read \(ENOENT\).*mount \/proc/);
  });
});
