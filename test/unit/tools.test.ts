import { describe, expect, test } from 'vitest';
import { codeMeanings } from '../../src/tools.ts';

describe('what exit codes mean', () => {
  test.each(['chef-client', 'cinc-client'])('%s: 213 is an upgrade, 35 and 37 announce a reboot', (name) => {
    expect(codeMeanings(name, [])).toEqual({ ok: [0, 213], reboot: [35, 37] });
    expect(codeMeanings(name, ['--test'])).toEqual({ ok: [0, 213], reboot: [35, 37] });
  });

  test.each([
    [
      ['agent', '--test'],
      [0, 2],
    ],
    [
      ['agent', '-t'],
      [0, 2],
    ],
    [
      ['apply', '--detailed-exitcodes', 'site.pp'],
      [0, 2],
    ],
    [['agent', '--test', '--no-detailed-exitcodes'], [0]],
    [
      ['agent', '--no-detailed-exitcodes', '--test'],
      [0, 2],
    ],
    [['apply', 'site.pp'], [0]],
    [['apply', '--tests', '--no-test', 'test', '-tv'], [0]],
    [[], [0]],
  ])('puppet %j: success is %j', (args, ok) => {
    expect(codeMeanings('puppet', args)).toEqual({ ok, reboot: [] });
  });

  test.each(['ansible-playbook', 'ansible-pull', 'sh', 'Chef-Client', 'chef-client.rb', ''])(
    '%s: success is 0 alone',
    (name) => {
      expect(codeMeanings(name, ['-t', '--detailed-exitcodes'])).toEqual({ ok: [0], reboot: [] });
    },
  );
});
