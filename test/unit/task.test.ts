import { describe, expect, onTestFinished, test } from 'vitest';
import { readStatements } from '../../src/cli/config/statements.ts';
import { isTaskName, toTask } from '../../src/agent/task/definition.ts';
import { fill } from '../../src/agent/task/parameters.ts';
import { accountOf, becoming, freshEnvironment, tryAs } from '../../src/commands/task/account.ts';

const define = (text: string) =>
  toTask(
    { name: 'chef', file: 't/chef.toml' },
    readStatements('t/chef.toml', text).filter(({ kind }) => kind === 'value'),
  );

const withRecipe = (more = '', word = '{recipe}') =>
  define(`command = ["/bin/chef", "${word}"]\nparams.recipe = { match = "[a-z_:-]*"${more} }`);

const given = (...pairs: [string, string][]) => new Map(pairs);

describe('a definition', () => {
  test('has its command, parameters and surroundings, however TOML writes them', () => {
    const text = `
command = ["/bin/chef", "-o", "recipe[{recipe}]"]
description = "converge"
user = "root"
cwd = "/srv"
env = { A = "1", B = 2 }
[params.recipe]
match = "[a-z]+"
default = "app"
description = "what"
dash = true`;
    expect(define(text)).toEqual({
      ...{ name: 'chef', file: 't/chef.toml', description: 'converge', user: 'root', cwd: '/srv' },
      command: ['/bin/chef', '-o', 'recipe[{recipe}]'],
      params: [{ name: 'recipe', match: '[a-z]+', fallback: 'app', description: 'what', dash: true }],
      env: { A: '1', B: '2' },
      allow: [],
      tail: true,
    });
  });

  const command = 'command = ["/bin/a", "{x}"]\n';
  test.each([
    ['t/chef.toml: a task needs a command', 'description = "x"'],
    [':1: command is a list of texts', 'command = "/bin/a b"'],
    [':1: command is a list of texts', 'command = []'],
    [':1: command is a list of texts', 'command = ["/bin/a", 3]'],
    [":1: command: 'chef-client' is not an absolute path", 'command = ["chef-client"]'],
    [":1: command: a word can't hold a zero byte", String.raw`command = ["/bin/a", "\u0000"]`],
    [":1: command: the program itself can't be a parameter", 'command = ["/bin/{x}"]'],
    [':1: command: {x} is not a parameter; declare params.x, or write {{x}}', command],
    [
      ':1: command: {recipie} is not a parameter; did you mean {recipe}?',
      'command = ["/a", "{recipie}"]\nparams.recipe = { match = "a" }',
    ],
    [':1: params.y is used nowhere in the command', 'command = ["/a"]\nparams.y = { match = "a" }'],
    [':2: params.x: match is missing', `${command}params.x = { default = "1" }`],
    [':2: params.x: match is missing', `${command}params.x = {}`],
    [":2: params.x.match: '(' is not a regular expression", `${command}params.x = { match = "(" }`],
    // It would end what stands around it.
    [
      ":2: params.x.match: 'a)|(?:b' is not a regular expression",
      `${command}params.x = { match = "a)|(?:b" }`,
    ],
    [":1: parameter x: '2' is not allowed", `${command}params.x = { match = "1", default = "2" }`],
    [":2: params.x: unknown key 'mach'; did you mean 'match'?", `${command}params.x = { mach = "1" }`],
    [':2: params.x.match: write a text in quotes', `${command}params.x = { match = 1 }`],
    [':2: params.x.dash: write true or false', `${command}params.x = { match = "1", dash = "yes" }`],
    [':2: params.X: a name is of lower-case letters', `${command}params.X = { match = "1" }`],
    [':2: params: write parameters', `${command}params = "x"`],
    [':2: params: write parameters', `${command}params.x.match.deeper = "x"`],
    [":2: cwd: 'srv' is not an absolute path", 'command = ["/a"]\ncwd = "srv"'],
    [':2: user: write a text in quotes', 'command = ["/a"]\nuser = 0'],
    [':2: description: write a text in quotes, of one line', 'command = ["/a"]\ndescription = "a\\nb"'],
    [':2: env.A-B: not a variable', 'command = ["/a"]\nenv."A-B" = "1"'],
    [':2: env.RUNLOCK_SLOTS: runlock sets this variable itself', 'command = ["/a"]\nenv.RUNLOCK_SLOTS = "1"'],
    [':2: env.A: write a text in quotes', 'command = ["/a"]\nenv.A = true'],
    [':2: env: write variables', 'command = ["/a"]\nenv = "A=1"'],
  ])('%s', (said, text) => {
    expect(() => define(text)).toThrow(said);
  });
});

describe('parameters', () => {
  test('become a part of one word each, never two words, and never a template again', () => {
    const task = define(`
command = ["/bin/a", "x[{a}]-{b}", "{{a}}", "\${HOME} {a b}", "{a}{a}"]
params.a = { match = ".*" }
params.b = { match = ".*", default = "two words" }`);
    expect(fill(task, given(['a', '{b} $(id) "\'']))).toEqual([
      '/bin/a',
      'x[{b} $(id) "\']-two words',
      '{{a}}',
      '${HOME} {a b}',
      '{b} $(id) "\'{b} $(id) "\'',
    ]);
  });

  test.each([
    ['a\nb', 'has control characters'],
    ['a b', 'is not allowed; the whole value must match'],
    ['A', 'is not allowed'],
    ['app\n', 'has control characters'],
    ['../x', 'is not allowed'],
    ['a'.repeat(257), 'is too long (257 characters); 256 are allowed'],
    ['-x', "begins with '-'"],
  ])('%j is refused', (value, said) => {
    expect(() => fill(withRecipe(), given(['recipe', value]))).toThrow(said);
  });

  test('match as a whole, also where the pattern is a choice; a brace of JSON may follow', () => {
    const task = define('command = ["/a", "{\\"x\\":{a}}"]\nparams.a = { match = "1|2" }');
    expect(fill(task, given(['a', '2']))).toEqual(['/a', '{"x":2}']);
    for (const value of ['12', '1x', 'x2', ''])
      expect(() => fill(task, given(['a', value]))).toThrow('is not allowed');
  });

  test('may begin a word with a dash only where the task says so', () => {
    expect(fill(withRecipe(', dash = true'), given(['recipe', '-x']))).toEqual(['/bin/chef', '-x']);
    expect(fill(withRecipe('', 'r={recipe}'), given(['recipe', '-x']))).toEqual(['/bin/chef', 'r=-x']);
    const other = define(
      'command = ["/a", "{x}", "{y}"]\nparams.x = { match = ".*", dash = true }\nparams.y = { match = ".*" }',
    );
    expect(fill(other, given(['x', '-a'], ['y', 'b']))).toEqual(['/a', '-a', 'b']);
    const two = define(
      'command = ["/a", "{x}{y}"]\nparams.x = { match = ".*", dash = true }\nparams.y = { match = ".*" }',
    );
    expect(() => fill(two, given(['x', ''], ['y', '-z']))).toThrow("begins with '-'");
  });

  test('that are unknown, or missing, are said by name', () => {
    expect(() => fill(withRecipe(), given(['recipie', 'a']))).toThrow(
      "task chef has no parameter 'recipie'; did you mean 'recipe'?",
    );
    expect(() => fill(define('command = ["/a"]'), given(['x', 'a']))).toThrow(
      "no parameter 'x'; it takes none",
    );
    expect(() => fill(withRecipe(), given())).toThrow(
      'task chef needs the parameter recipe; give --param recipe=VALUE',
    );
  });
});

test.each([
  ['chef', true],
  ['9-a_b', true],
  ['Chef', false],
  ['', false],
  ['../x', false],
  ['-x', false],
  ['a'.repeat(65), false],
])("%j is a task's name: %s", (name, is) => {
  expect(isTaskName(name)).toBe(is);
});

test("the command's environment is made from nothing: no token, no option, no library path", () => {
  const account = { name: 'ops', uid: 7, gid: 7, home: '/home/ops', shell: '/bin/sh' };
  const callers = { CONSUL_HTTP_TOKEN: 's', RUNLOCK_SLOTS: '2', LD_PRELOAD: 'x', LANG: 'de', PATH: '/evil' };
  expect(freshEnvironment(account, callers)).toEqual({
    ...{
      PATH: '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin',
      HOME: '/home/ops',
      LANG: 'de',
    },
    ...{ USER: 'ops', LOGNAME: 'ops', SHELL: '/bin/sh' },
  });
});

test('variables that the loader obeys are set once the process is the other user, and not before', () => {
  const account = { name: 'ops', uid: 7, gid: 8, home: '/home/ops', shell: '/bin/sh' };
  const env = { A: '1', LD_PRELOAD: '/x.so', LD_LIBRARY_PATH: '/x', GLIBC_TUNABLES: 'x' };
  const as = ['/usr/bin/setpriv', '--reuid=7', '--regid=8', '--init-groups', '--'];
  expect(becoming(account, 0, env)).toEqual({
    ...{ as, env: { A: '1' } },
    become: [
      ...[...as, '/usr/bin/env', 'LD_PRELOAD=/x.so', 'LD_LIBRARY_PATH=/x', 'GLIBC_TUNABLES=x'],
      // It takes no program for a variable.
      ...['/usr/bin/setpriv', '--'],
    ],
  });
  expect(becoming(account, 0, { A: '1' })).toEqual({ as, become: as, env: { A: '1' } });
  expect(becoming(account, 7, env)).toEqual({ become: undefined, as: undefined, env });
});

test("the caller's variables don't decide who a user is, and what that user may do", () => {
  // With this one, the loader lists libraries and runs nothing.
  process.env['LD_TRACE_LOADED_OBJECTS'] = '1';
  onTestFinished(() => {
    delete process.env['LD_TRACE_LOADED_OBJECTS'];
  });
  const nobody = { user: 'nobody', file: 't/chef.toml' };
  const account = accountOf(nobody, { uid: 0 });
  expect(account).toMatchObject({ name: 'nobody', uid: 65_534 });
  const tried = { programs: ['/bin/true'], cwd: '/', file: 't/chef.toml', account };
  expect(() => {
    tryAs({ ...tried, cwd: '/bin/true' }, undefined);
  }).toThrow('t/chef.toml: cwd: /bin/true is not a folder');
  expect(() => {
    tryAs({ ...tried, programs: ['/bin/true', '/etc/passwd'] }, undefined);
  }).toThrow(/cannot run \/etc\/passwd: this user may not execute it; .*\(noexec\)/);
  expect(() => {
    tryAs(tried, undefined);
  }).not.toThrow();
});

test.each([
  ['it says why', ['/bin/sh', '-c', 'echo setpriv: no way >&2; exit 1'], 'ops: setpriv: no way; root needs'],
  ['it says nothing', ['/bin/sh', '-c', 'exit 127'], 'ops: /bin/sh ended with 127; root needs'],
  ['it is killed', ['/bin/sh', '-c', 'kill -9 $$'], 'ops: /bin/sh ended with a signal; root needs'],
  ['it is not there', ['/no/such', '-c'], 'ops: '],
] as const)("a user that can't be become is not one who may not: %s", (_, as, said) => {
  const account = { name: 'ops', uid: 7, gid: 8, home: '/home/ops', shell: '/bin/sh' };
  const tried = { programs: ['/bin/true'], cwd: '/', file: 't/chef.toml', account };
  expect(() => {
    tryAs(tried, as);
  }).toThrow(`t/chef.toml: user: cannot start a process as ${said}`);
});
