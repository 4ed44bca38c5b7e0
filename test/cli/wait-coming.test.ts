// docs/waiting.md for people who come from noah_block and from Flock of Chefs: its own commands, and what it says of them.
import { readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { groupOf } from '../support/group.ts';
import { eventually } from '../support/processes.ts';
import { startProxy } from '../support/proxy.ts';
import type { ProxyRequest } from '../support/proxy.ts';
import { runlock, startRunlock } from '../support/runlock.ts';
import { useAgent } from '../support/use-agent.ts';

const agent = useAgent();

const page = readFileSync(new URL('../../docs/waiting.md', import.meta.url), 'utf8');

/** The cells of the table's row that begins with this text. */
function row(start: string): string[] {
  const line = page.split('\n').find((one) => one.startsWith(`| ${start}`)) ?? '';
  return line.split(' | ').map((cell) => cell.replace(/^\| | \|$/g, ''));
}

/** The command of a cell, as words; for a state of the test's own, and with another time. */
function commandOf(cell: string, path: string, timeout?: string): string[] {
  const [, line = ''] = /`(?:runlock )?(wait [^`]+)`/.exec(cell) ?? [];
  const words = line.replaceAll('PATH', path).replaceAll('DATA', 'yes').split(' ');
  const at = words.indexOf('--timeout') + 1;
  return timeout === undefined ? words : words.map((word, i) => (i === at ? timeout : word));
}

const [, retry = '', pass = '', fail = ''] = row('the state is not set (404)');
const set = (path: string, value: string) => runlock(agent, ['state', 'set', path, value]);
const waits = async (args: readonly string[]) => {
  const running = startRunlock(agent, [...args, '-v']);
  await running.says(/ does not hold: /);
  return running;
};

describe('noah_block', () => {
  test(':retry waits for a state that is not set, and for another value', async () => {
    const running = await waits(commandOf(retry, 'noah/retry'));
    await set('noah/retry', 'no');
    await set('noah/retry', 'yes');
    expect((await running.ended).status).toBe(0);
  });

  test(':pass goes on at once where the state is not set, and waits for another value', async () => {
    expect((await runlock(agent, commandOf(pass, 'noah/pass'))).status).toBe(0);
    await set('noah/pass', 'no');
    const running = await waits(commandOf(pass, 'noah/pass'));
    await set('noah/pass', 'yes');
    expect((await running.ended).status).toBe(0);
  });

  test(':fail ends at once, with 75, where the state is not set or another', async () => {
    expect((await runlock(agent, commandOf(fail, 'noah/fail'))).status).toBe(75);
    await set('noah/fail', 'no');
    expect((await runlock(agent, commandOf(fail, 'noah/fail'))).status).toBe(75);
    await set('noah/fail', 'yes');
    expect((await runlock(agent, commandOf(fail, 'noah/fail'))).status).toBe(0);
  });

  test('at the end of its time: 75, and 0 for :pass', async () => {
    const [, ofRetry = '', ofPass = '', ofFail = ''] = row('the end of `timeout`');
    const option = /`(--on-timeout pass)`/.exec(ofPass)?.[1]?.split(' ') ?? [];
    expect([ofRetry, ofFail]).toEqual(['exit 75', 'exit 75']);
    expect((await runlock(agent, commandOf(retry, 'noah/time', '200ms'))).status).toBe(75);
    await set('noah/time', 'no');
    expect((await runlock(agent, [...commandOf(pass, 'noah/time', '200ms'), ...option])).status).toBe(0);
  });

  test('without its server: tries on in one and the same time; 75 once it had answered, else 69', async () => {
    await using proxy = await startProxy(agent);
    const nowhere = { env: { CONSUL_HTTP_ADDR: '127.0.0.1:1' } };
    for (const more of [[], ['--on-timeout', 'pass']])
      expect((await runlock(nowhere, [...commandOf(retry, 'noah/away', '100ms'), ...more])).status).toBe(69);
    const startedMs = performance.now();
    const running = startRunlock(proxy, [...commandOf(retry, 'noah/away', '4s'), '-v']);
    await running.says(/ does not hold: /);
    proxy.rule({ do: 'drop-before' });
    proxy.sever();
    expect((await running.ended).status).toBe(75);
    expect(performance.now() - startedMs).toBeLessThan(8_000);
  });

  test('does not poll: while nothing changes there is one request', async () => {
    await using proxy = await startProxy(agent);
    await set('noah/quiet', 'no');
    const isWatch = ({ path }: ProxyRequest) => /[?&]index=\d/.test(path);
    const running = startRunlock(proxy, [...commandOf(retry, 'noah/quiet', '7s'), '-v']);
    await eventually(() => expect(proxy.requests.filter(isWatch)).toHaveLength(1));
    const { length } = proxy.requests;
    // Twice as long as noah_block paused.
    expect((await running.ended).status).toBe(75);
    expect(proxy.requests).toHaveLength(length);
  });
});

describe('Flock of Chefs', () => {
  test('wait_until: as soon as the other node has said so', async () => {
    const [, line = ''] = row('`wait_until');
    const running = await waits(commandOf(line, ''));
    await runlock(agent, ['state', 'set', 'db/schema', '42']);
    expect((await running.ended).status).toBe(0);
  });

  test('wait_while: as soon as no run of the other node is active', async () => {
    const [, line = ''] = row('`wait_while');
    const holder = await groupOf(agent, 'default').hold('db01');
    const running = startRunlock(agent, [...commandOf(line, ''), '-v']);
    await running.says(/active:db01 holds/);
    await holder.end();
    expect((await running.ended).status).toBe(0);
  });

  test('without a time is refused', async () => {
    const [, words = ''] = row('no timeout at all');
    expect(words).toContain('`--timeout` is required');
    expect((await runlock(agent, ['wait', '--until', 'state:db/schema'])).status).toBe(64);
  });
});
