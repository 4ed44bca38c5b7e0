// What the real puppet makes of command lines: does it take them, and do they ask for detailed exit codes?
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { runPlain, toolbox } from './tools.ts';

/**
 * A function for manifests, so that it runs inside puppet itself. Each line is read in a process of its own, through both of
 * puppet's parsers, as `puppet` does before it runs an application; what it decides there stands in its options.
 */
const reader = `
require 'json'
Puppet::Functions.create_function(:'lines::read') do
  dispatch(:read) do
    param 'String', :from
    param 'String', :to
  end
  def read(from, to)
    File.write(to, JSON.generate(JSON.parse(File.read(from)).map { |words| apart(words) }))
  end
  def apart(words)
    out, into = IO.pipe
    pid = fork do
      $stdout.reopen('/dev/null')
      $stderr.reopen('/dev/null')
      into.write(JSON.generate([said(words)]))
      into.close
      exit!(0)
    end
    into.close
    text = out.read
    Process.wait(pid)
    JSON.parse(text)[0]
  end
  def said(words)
    Puppet.settings.send(:clear_everything_for_tests)
    line = Puppet::Util::CommandLine.new('puppet', words)
    Puppet.initialize_settings(line.args, false)
    app = Puppet::Application.find(line.subcommand_name).new(line)
    app.preinit
    app.parse_options
    # The first thing that Agent#setup does.
    return 'refused' if words[0] == 'agent' && !app.command_line.args.empty?
    app.setup_test if app.options[:test]
    app.options[:detailed_exitcodes] ? 'detailed' : 'plain'
  rescue OptionParser::ParseError, Puppet::Error, ArgumentError
    'refused'
  end
end
`;

export type Said = 'detailed' | 'plain' | 'refused';

/** What puppet says of each line, in their order. */
export async function asPuppetReads(lines: readonly (readonly string[])[]): Promise<readonly Said[]> {
  const { folder, env, write, puppetApply } = toolbox();
  const file = join(folder, 'modules/lines/lib/puppet/functions/lines/read.rb');
  mkdirSync(dirname(file), { recursive: true });
  writeFileSync(file, reader);
  const [from, to] = [write('lines.json', JSON.stringify(lines)), join(folder, 'said.json')];
  const manifest = `lines::read('${from}', '${to}')`;
  const run = await runPlain(await puppetApply('--modulepath', join(folder, 'modules'), '-e', manifest), {
    env,
  });
  if (run.status !== 0) throw new Error(`puppet: ${run.stdout.toString()}${run.stderr.toString()}`);
  return JSON.parse(readFileSync(to, 'utf8')) as Said[];
}
