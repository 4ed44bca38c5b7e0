// What doctor makes of what it found.
import { chmodSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, onTestFinished, test } from 'vitest';
import { countConnections } from '../../src/commands/doctor/connections.ts';
import { judgeClock, judgeTls } from '../../src/commands/doctor/contact.ts';
import { judgeClaims } from '../../src/commands/doctor/leftovers.ts';
import { judgeSession, judgeToken, judgeNode } from '../../src/commands/doctor/rights.ts';
import { groupKeys } from '../../src/lock/keys.ts';
import {
  judgeContainment,
  judgeNodeVersion,
  judgePrograms,
  judgeRunFiles,
} from '../../src/commands/doctor/surroundings.ts';
import { judgePlace } from '../../src/commands/doctor/doctor.ts';
import { judgeVersions } from '../../src/commands/doctor/versions.ts';
import { addressOf } from '../../src/consul/address.ts';
import { renderDoctor } from '../../src/output/doctor.ts';
import type { Check, DoctorReport } from '../../src/output/doctor.ts';

const DAY_MS = 86_400_000;

describe('the clock', () => {
  /** A question that took 200 ms, by a clock `aheadMs` ahead of an agent's that was 0.9 s into its second. */
  const ahead = (aheadMs: number) => {
    const sentAt = 1_000_900 + aheadMs;
    return judgeClock({ sentAt, answeredAt: sentAt + 200, date: 1_000_000, sameHost: false }).level;
  };

  test.each([0, 99, -1_100])('%i ms ahead is no difference that a Date can show', (ms) => {
    expect(ahead(ms)).toBe('ok');
  });

  test('what may differ is a note, then a warning, and beyond it a problem, either way', () => {
    expect([2_000, 4_000, 5_200, 60_000].map(ahead)).toEqual(['note', 'warning', 'problem', 'problem']);
    expect([-2_200, -4_000, -6_200, -60_000].map(ahead)).toEqual(['note', 'warning', 'problem', 'problem']);
  });

  test('a slow answer proves less', () => {
    const slow = { sentAt: 1_000_000, answeredAt: 1_009_000, date: 1_000_000, sameHost: false };
    expect(judgeClock(slow).level).toBe('ok');
  });
});

describe('TLS', () => {
  const where = {
    address: 'https://consul:8501',
    from: 'CONSUL_HTTP_ADDR',
    tls: true,
    verify: true,
  } as const;

  test('a certificate that ends within two weeks is a warning', () => {
    expect(judgeTls(where, { validTo: 15 * DAY_MS }, 0).level).toBe('ok');
    expect(judgeTls(where, { validTo: 13 * DAY_MS }, 0)).toMatchObject({
      level: 'warning',
      found: 'verified, certificate valid for 13d',
    });
  });

  test('plain HTTP is fine on this host, and a note beyond it', () => {
    const plain = { ...where, tls: false };
    const level = (address: string) => judgeTls({ ...plain, address }, undefined, 0).level;
    expect(
      ['127.0.0.1:8500', 'http://localhost:8500/x', '[::1]:8500', 'http://…@localhost'].map(level),
    ).toEqual(Array(4).fill('ok'));
    expect(['10.0.0.1:8500', 'http://localhost.example:8500'].map(level)).toEqual(['note', 'note']);
    expect(judgeTls({ ...plain, address: 'unix:///x', socketPath: '/x' }, undefined, 0).level).toBe('ok');
  });
});

test('a password in the address is not shown', () => {
  const shown = (CONSUL_HTTP_ADDR: string) => addressOf({ CONSUL_HTTP_ADDR }).address;
  expect(shown('https://me:pa@ss@consul:1/x')).toBe('https://…@consul:1/x');
  expect(shown('me:pass@consul:1')).toBe('…@consul:1');
  expect(shown('consul:1')).toBe('consul:1');
  expect(shown('unix:///run/a@b.sock')).toBe('unix:///run/a@b.sock');
  expect(addressOf({})).toEqual({ address: '127.0.0.1:8500', from: 'the default' });
});

test('a token that expires within a week is a warning', () => {
  const at = (days: number) =>
    judgeToken(
      { AccessorID: 'a', SecretID: 'secret', ExpirationTime: new Date(days * DAY_MS).toISOString() },
      { from: 'X', now: 0 },
    );
  expect(at(8)).toEqual({ check: 'token', level: 'ok', found: 'from X, accessor a, expires in 8d' });
  expect(at(6)).toMatchObject({ level: 'warning' });
});

test('a Consul older than the one that tests run with is a note', () => {
  expect(judgeVersions('1.8.7', ['1.8.7']).level).toBe('ok');
  expect(judgeVersions('1.20.1', ['1.8.7'])).toMatchObject({
    level: 'note',
    found: 'agent 1.20.1, servers 1.8.7',
    fix: expect.stringMatching(/^no action needed: .* 1\.8\.7, and with a simulation/) as string,
  });
  expect(judgeVersions('1.8.7', ['1.9.0+ent']).level).toBe('note');
  expect(judgeVersions('1.8.7', ['1.7.9'])).toMatchObject({
    level: 'note',
    found: 'agent 1.8.7, servers 1.7.9',
  });
});

test('a session that is not as it was asked for is a problem', () => {
  const asked = { id: 's', node: 'web01', ttl: '30s', behavior: 'delete', lockDelayMs: 0, checks: [] };
  expect(judgeSession(asked).level).toBe('ok');
  const others = [{ ttl: '' }, { behavior: 'release' }, { lockDelayMs: 15_000 }, { checks: ['serfHealth'] }];
  for (const other of others)
    expect(judgeSession({ ...asked, ...other }).fix).toContain('drop request bodies');
  expect(judgeSession(undefined).level).toBe('problem');
});

describe('connections', () => {
  const head = '  sl  local_address rem_address   st tx_queue';
  const four = (local: string, remote: string, state = '01') => `   0: ${local} ${remote} ${state} 0 0`;

  test('only open ones to the agent’s address and port count, from the address that has most', () => {
    const table = [
      head,
      four('0100007F:A000', '0100007F:2134'),
      four('0100007F:A001', '0100007F:2134'),
      four('0200007F:A002', '0100007F:2134'),
      four('0100007F:A003', '0100007F:2134', '06'),
      four('0100007F:A004', '0100007F:2135'),
      four('0100007F:2134', '0100007F:A000'),
    ].join('\n');
    expect(countConnections(table, { address: '127.0.0.1', port: 8500 })).toBe(2);
    expect(countConnections(head, { address: '127.0.0.1', port: 8500 })).toBe(0);
  });

  test('an IPv4 address in the table for IPv6, and IPv6 itself', () => {
    const mapped = four('0000000000000000FFFF00000100007F:A000', '0000000000000000FFFF00000100007F:2134');
    expect(countConnections(mapped, { address: '::ffff:127.0.0.1', port: 8500 })).toBe(1);
    const six = four('000080FE00000000000000000200000A:A000', '000080FE00000000000000000100000A:2134');
    expect(countConnections(six, { address: 'fe80::a00:1', port: 8500 })).toBe(1);
  });
});

test('claims of nodes in the catalogue are no leftovers; without the catalogue nobody is gone', () => {
  const keys = groupKeys('runlock', 'g');
  const claims = [
    { slot: 0, node: 'here', vanished: false },
    { slot: 1, node: 'gone', vanished: true },
  ];
  expect(judgeClaims(claims, { keys, nodes: ['here'] }).map(({ found }) => found)).toEqual([
    "slot 1: the run of gone has vanished, and gone is not in Consul's catalogue",
  ]);
  expect(judgeClaims(claims, { keys, nodes: undefined }).map(({ level }) => level)).toEqual([
    'warning',
    'note',
  ]);
  expect(judgeClaims([], { keys, nodes: undefined })).toEqual([]);
});

describe('this host', () => {
  const PROGRAMS = ['sh', 'timeout', 'dd', 'sleep', 'grep', 'awk'];

  test('each program that the guard lacks is named, with the package to install', () => {
    const folder = mkdtempSync(join(tmpdir(), 'runlock-path-'));
    onTestFinished(() => rmSync(folder, { recursive: true }));
    for (const name of PROGRAMS.slice(0, 4)) symlinkSync('/bin/sh', join(folder, name));
    writeFileSync(join(folder, 'grep'), '');
    chmodSync(join(folder, 'grep'), 0o644);
    expect(judgePrograms(`:/nowhere:${folder}`)).toMatchObject({
      level: 'problem',
      found: 'programs of the guard missing: grep, awk. If runlock is killed, the command keeps running',
      fix: 'install grep, mawk, or set PATH',
    });
    chmodSync(join(folder, 'grep'), 0o755);
    symlinkSync('/bin/sh', join(folder, 'awk'));
    expect(judgePrograms(folder).level).toBe('ok');
  });

  test('which containment is used, and why; where runs are noted, or why not: no problems', () => {
    expect(judgeContainment({ usable: true, home: '/sys/fs/cgroup/x' })).toEqual({
      ...{ check: 'host', level: 'ok', found: 'runs get their own cgroup below /sys/fs/cgroup/x' },
    });
    expect(judgeContainment({ usable: false, why: 'no cgroup v2' })).toMatchObject({
      level: 'note',
      found: expect.stringMatching(
        /runs get no cgroup \(no cgroup v2\): .*mark, session and parent/,
      ) as string,
    });
    expect(judgeRunFiles({ folder: '/run/runlock' })).toMatchObject({
      ...{ level: 'ok', found: 'runs are recorded in /run/runlock' },
    });
    expect(
      judgeRunFiles({ folder: '/tmp/runlock-7-abc123', taken: '/tmp/runlock-7 belongs to user 8' }),
    ).toMatchObject({
      level: 'note',
      found: 'runs are recorded in /tmp/runlock-7-abc123, because /tmp/runlock-7 belongs to user 8',
    });
    expect(judgeRunFiles({ why: "/run can't be written" })).toMatchObject({
      level: 'note',
      found: expect.stringContaining("(/run can't be written)") as string,
    });
  });

  test('a Node.js that is too old is a problem', () => {
    expect(['20.19.0', '22.0.0', '20.18.9', '18.20.0'].map((text) => judgeNodeVersion(text).level)).toEqual([
      ...['ok', 'ok', 'problem', 'problem'],
    ]);
  });
});

describe('the node', () => {
  const elsewhere = { host: 'web01.example.com', isRemote: true };

  test('of an agent on another host is a warning: all who use it share that name', () => {
    const [check] = judgeNode(undefined, 'consul-1', elsewhere);
    expect(check).toMatchObject({
      level: 'warning',
      found: expect.stringMatching(/^consul-1 .* this host is web01.example.com: /) as string,
      fix: expect.stringContaining('--node web01.example.com') as string,
    });
  });

  test.each([
    ['chosen', 'web01', 'consul-1', elsewhere],
    ['of an agent here, whatever it is called', undefined, 'i-0123', { ...elsewhere, isRemote: false }],
    ['this host’s, by an address of its own', undefined, 'WEB01', elsewhere],
  ])('%s is well', (_, chosen, agentNode, here) => {
    expect(judgeNode(chosen, agentNode, here)).toMatchObject([{ level: 'ok' }]);
  });
});

describe('the report', () => {
  const report = (verdict: DoctorReport['verdict'], checks: readonly Check[]): DoctorReport => ({
    ...{ v: 1, at: '2026-01-01T00:00:00.000Z', address: 'a', prefix: 'runlock', groups: ['g'] },
    ...{ verdict, checks },
  });

  test('says in its last line how many of each there are', () => {
    const checks: Check[] = (['problem', 'problem', 'warning', 'note', 'ok'] as const).map((level) => ({
      ...{ check: 'rights', level, found: level },
    }));
    expect(renderDoctor(report('problem', checks), { color: false }).split('\n').at(-2)).toBe(
      '2 problems, 1 warning',
    );
    expect(
      renderDoctor(report('ok', checks.slice(3)), { color: false })
        .split('\n')
        .at(-2),
    ).toBe('no problems for group g');
  });

  test('what comes from elsewhere cannot speak to the terminal', () => {
    const text = renderDoctor(
      report('ok', [{ check: 'leader', level: 'ok', found: 'x\u001b[2J', fix: 'y\nz' }]),
      { color: false },
    );
    expect(text.split('\n')[0]).toBe(String.raw`ok       leader       x\x1b[2J; y\x0az`);
  });

  test('colours the levels where there are colours', () => {
    expect(
      renderDoctor(report('warning', [{ check: 'token', level: 'warning', found: 'x' }]), { color: true }),
    ).toContain('\u001b[33mwarning\u001b[39m');
  });
});

test('namespaces and partitions are said to be untried with a real Consul Enterprise', () => {
  expect(judgePlace({})).toEqual([]);
  const [note, ...more] = judgePlace({ namespace: 'team', partition: 'east' });
  expect(more).toEqual([]);
  expect(note).toMatchObject({
    level: 'note',
    found: 'namespace team (CONSUL_NAMESPACE), partition east (CONSUL_PARTITION)',
    fix: expect.stringContaining('not been tested with Consul Enterprise') as string,
  });
});
