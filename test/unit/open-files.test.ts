import { expect, test } from 'vitest';
import { unitIn } from '../../src/agent/open-files.ts';

test.each([
  ['0::/system.slice/runlock-agent.service\n', 'runlock-agent.service'],
  ['12:pids:/x.service\n1:name=systemd:/system.slice/a.service\n0::/\n', 'a.service'],
  ['0::/user.slice/user-0.slice/session-1.scope\n', undefined],
  ['0::/system.slice/runlock-agent.service/runlock-1\n', undefined],
  ['0::/\n', undefined],
  ['', undefined],
])('the unit in %j is %s', (cgroup, unit) => {
  expect(unitIn(cgroup)).toBe(unit);
});
