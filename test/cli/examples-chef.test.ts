// examples/chef: the handlers in a real Ruby (the one that puppet brings), with a stand-in for Chef.
import { mkdirSync, readFileSync, symlinkSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { expect, test } from 'vitest';
import { useAgent } from '../support/use-agent.ts';
import { groupOf } from '../support/group.ts';
import { RUNLOCK } from '../support/program.ts';
import { runlock } from '../support/runlock.ts';
import { runPlain, toolbox } from '../support/tools.ts';

const CHEF = resolve(import.meta.dirname, '../../examples/chef');

const agent = useAgent({ name: 'web01' });

const on = (group: string) => groupOf(agent, group);

/** Knows of Chef what a handler sees of it (Chef::Handler in Chef's own lib/chef/handler.rb), and nothing more. */
const standIn = `
class Chef
  class Handler
    attr_accessor :failed
    def failed?
      failed
    end
  end
end
`;

/** Goes through the handlers as chef-client does: what a start handler raises fails the run. */
const client = `
class Client
  attr_reader :start_handlers, :report_handlers, :exception_handlers
  def initialize(file)
    @start_handlers, @report_handlers, @exception_handlers = [], [], []
    instance_eval(File.read(file), file, 1)
  end
  def run(recipe)
    begin
      start_handlers.each(&:report)
      puts 'the recipe runs'
      failed = recipe == 'fails'
    rescue StandardError => error
      puts "start handler: #{error.message}"
      failed = true
    end
    (failed ? exception_handlers : report_handlers).each { |handler| handler.failed = failed; handler.report }
  end
end

$stdout.sync = true
Client.new(ARGV[0]).run(ARGV[1])
`;

function chef() {
  const { folder, env, write, puppetApply } = toolbox();
  for (const path of ['chef', 'bin']) mkdirSync(join(folder, path));
  write('chef/handler.rb', standIn);
  write('client.rb', client);
  symlinkSync(RUNLOCK, join(folder, 'bin/runlock'));
  const ruby = async (args: readonly string[], more: Record<string, string> = {}) => {
    const [puppet = ''] = await puppetApply();
    const PATH = `${join(folder, 'bin')}:${process.env['PATH'] ?? ''}`;
    const command = [...rubyOf(puppet, write), ...args];
    const done = await runPlain(command, { env: { ...agent.env, ...env, PATH, ...more } });
    return { status: done.status, output: `${done.stdout.toString()}${done.stderr.toString()}` };
  };
  return {
    converge: (group: string, recipe: 'succeeds' | 'fails') => {
      const file = join(CHEF, 'files/client.d/runlock.rb');
      const args = ['-I', folder, join(folder, 'client.rb'), file, recipe];
      return ruby(args, { RUNLOCK_GROUP: group, RUNLOCK_WAIT: '0' });
    },
    compile: (path: string) => ruby(['-c', path]),
    broken: () => write('broken.rb', 'def x('),
  };
}

/** The Ruby that runs puppet: the one that its first line names, or that the script out of our cache starts. */
function rubyOf(puppet: string, write: (name: string, text: string, mode: number) => string): string[] {
  const text = readFileSync(puppet, 'utf8');
  const [, interpreter = ''] = /^#!\s*(.*)/.exec(text) ?? [];
  if (!interpreter.endsWith('/sh')) return interpreter.split(' ');
  const script = text
    .replace('${0%/bin/*}', puppet.replace(/\/bin\/[^/]*$/, ''))
    .replace(' "$root/usr/bin/puppet" "$@"', ' "$@"')
    .replace(/^case .*\n/m, '');
  return [write('ruby', script, 0o755)];
}

test('every file of the example is Ruby', async () => {
  const { compile, broken } = chef();
  const files = [
    'metadata.rb',
    'recipes/default.rb',
    'files/runlock_handler.rb',
    'files/client.d/runlock.rb',
  ];
  for (const file of files)
    expect(await compile(join(CHEF, file))).toMatchObject({ status: 0, output: 'Syntax OK\n' });
  expect((await compile(broken())).status).toBe(1);
});

test('a good run gives its slot back; a failed one keeps it until the next good run', async () => {
  const { converge } = chef();
  const good = await converge('chef', 'succeeds');
  expect(good.output).toContain('the recipe runs');
  expect(good.output).toContain('released slot 0 of chef');
  expect(await on('chef').lastRun('web01')).toMatchObject({ outcome: 'succeeded' });
  const bad = await converge('chef', 'fails');
  expect(bad.output).toContain('web01 failed after');
  expect(await on('chef').claim()).toMatchObject({ state: 'failed', node: 'web01' });
  expect((await converge('chef', 'succeeds')).output).toContain('the recipe runs');
  expect(await on('chef').claim()).toBeUndefined();
});

test('without a slot the recipe does not run, and what the other node holds stays', async () => {
  const { converge } = chef();
  await runlock(agent, ['acquire', 'taken', '--node', 'web02']);
  const refused = await converge('taken', 'succeeds');
  expect(refused.output).toMatch(/busy: no slot available in taken .*web02 held/);
  expect(refused.output).toContain('start handler: runlock acquire taken --wait 0: exit status 75');
  expect(refused.output).not.toContain('the recipe runs');
  expect(refused.output).toContain('nothing to release: web01 has no claim in taken');
  expect(await on('taken').claim()).toMatchObject({ state: 'held', node: 'web02' });
});
