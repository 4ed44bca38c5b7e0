// What `npm start` and `npm cit` show while they fetch programs.
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test, vi } from 'vitest';
import { fetchingOn } from '../support/fetching.ts';
import { stage } from '../support/stage.ts';

function screen(isTTY: boolean) {
  let text = '';
  return { isTTY, write: (part: string) => (text += part), text: () => text };
}

describe('fetching a program', () => {
  test('is a line at its start and one at its end', async () => {
    const log = screen(false);
    const fetching = { name: 'consul', folder: '/nonexistent' };
    expect(await fetchingOn(log)(fetching, () => Promise.resolve(7))).toBe(7);
    expect(log.text()).toBe('fetching consul from Debian ...\nfetching consul from Debian: done after 0s\n');
  });

  test('shows on a terminal how much has come so far', async () => {
    const { folder } = stage();
    const terminal = screen(true);
    await fetchingOn(terminal)({ name: 'consul', folder }, async () => {
      writeFileSync(join(folder, 'half'), Buffer.alloc(17_000_000));
      await vi.waitFor(() => expect(terminal.text()).toContain('17 MB'), 10_000);
    });
    const [, last] = terminal.text().split('17 MB\r');
    expect(last).toContain('fetching consul from Debian: done after');
  });

  test('that fails is not done, and the caller hears why', async () => {
    const log = screen(false);
    const fetch = () => Promise.reject(new Error('no network'));
    await expect(fetchingOn(log)({ name: 'consul', folder: '/nonexistent' }, fetch)).rejects.toThrow(
      'no network',
    );
    expect(log.text()).toMatch(/failed after 0s\n$/);
  });
});
