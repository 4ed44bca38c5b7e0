import { describe, expect, test } from 'vitest';
import { codeMeanings } from '../../src/runner/outcome.ts';

describe('what exit codes mean', () => {
  test.each(['chef-client', 'cinc-client'])('%s: 213 is an upgrade, 35 and 37 announce a reboot', (name) => {
    expect(codeMeanings(name, [])).toEqual({ ok: [0, 213], reboot: [35, 37] });
    expect(codeMeanings(name, ['--test'])).toEqual({ ok: [0, 213], reboot: [35, 37] });
  });

  // What the real puppet says of these and many more: test/cli/tools-puppet-options.test.ts. Puppet knows no
  // --no-detailed-exitcodes (it ends with 1), and its -tv asks for detailed codes: the two were the other way round here.
  test.each([
    ['agent --test', [0, 2]],
    ['agent -t', [0, 2]],
    ['agent -tv', [0, 2]],
    ['agent --onetime --no-daemonize --detailed-exit', [0, 2]],
    ['apply --detailed-exitcodes site.pp', [0, 2]],
    ['apply site.pp', [0]],
    ['apply --execute -t', [0]],
    ['apply test', [0]],
    ['apply -- -t', [0]],
    ['device -t', [0]],
    ['resource -t', [0]],
    ['toString --test', [0]],
    ['agent --Detailed_Exitcodes', [0, 2]],
    ['apply -lconsole -t', [0, 2]],
    ['apply --execute=code -t', [0, 2]],
    ['agent -f -t', [0]],
    ['-t agent', [0]],
    ['', [0]],
  ])('puppet %s: success is %j', (line, ok) => {
    expect(codeMeanings('puppet', line.split(' '))).toEqual({ ok, reboot: [] });
    expect(codeMeanings('puppet', [])).toEqual({ ok: [0], reboot: [] });
  });

  test.each(['ansible-playbook', 'ansible-pull', 'sh', 'Chef-Client', 'chef-client.rb', ''])(
    '%s: success is 0 alone',
    (name) => {
      expect(codeMeanings(name, ['-t', '--detailed-exitcodes'])).toEqual({ ok: [0], reboot: [] });
    },
  );
});
