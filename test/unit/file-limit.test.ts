import { expect, test } from 'vitest';
import { callersSoftLimit } from '../../src/process/contain.ts';

const limits = (soft: number | string, hard: number | string) =>
  [
    'Limit                     Soft Limit           Hard Limit           Units     ',
    'Max processes             100                  200                  processes ',
    `Max open files            ${soft}                 ${hard}               files     `,
  ].join('\n');

test.each([
  ['the parent’s, where only the runtime has raised it', [4096, 4096], [1024, 4096], 1024],
  ['unknown, where the hard one is another', [4096, 4096], [1024, 8192], undefined],
  ['as it is, where nothing was raised', [1024, 4096], [1024, 4096], undefined],
  ['as it is, where the parent’s is higher', [1024, 4096], [4096, 4096], undefined],
  ['the parent’s, where the hard one has no end', ['unlimited', 'unlimited'], [1024, 'unlimited'], 1024],
] as const)('%s', (_, own, parents, soft) => {
  expect(callersSoftLimit(limits(own[0], own[1]), limits(parents[0], parents[1]))).toBe(soft);
});

test('unknown, where nobody may look', () => {
  expect(callersSoftLimit(limits(4096, 4096), '')).toBeUndefined();
});
