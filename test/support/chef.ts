// A stand-in for chef-client, which can't be had here: what it has of handlers and resources, in a real Ruby (puppet's).
import { mkdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Toolbox } from './tools.ts';

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

/**
 * Goes through the handlers as chef-client does: what a start handler raises fails the run, what another raises is said.
 * A recipe is a file, of whose resources only \`execute\` is known; or 'fails', or any other word for one that succeeds.
 */
const client = `
# Not chef-client: a stand-in with its handlers, and of its resources 'execute' alone.
class Execute
  def initialize(&block)
    instance_eval(&block)
  end
  def command(line)
    @command = [line].flatten
  end
  def not_if(line)
    @not_if = line
  end
  def run
    return if @not_if && system(@not_if)
    raise "#{@command.first}: #{$?.inspect}" unless system(*@command)
  end
end

class Client
  Node = Struct.new(:name)
  attr_reader :start_handlers, :report_handlers, :exception_handlers
  def initialize(file)
    @start_handlers, @report_handlers, @exception_handlers = [], [], []
    instance_eval(File.read(file), file, 1)
  end
  def node_name
    ENV.fetch('CHEF_NODE_NAME')
  end
  def node
    Node.new(node_name)
  end
  def execute(name, &block)
    puts "execute[#{name}]"
    Execute.new(&block).run
  end
  def converge(recipe)
    return instance_eval(File.read(recipe), recipe, 1) if File.exist?(recipe)
    puts 'the recipe runs'
    raise 'the recipe fails' if recipe == 'fails'
  end
  def run(recipe)
    failed = false
    begin
      start_handlers.each(&:report)
      begin
        converge(recipe)
      rescue StandardError => error
        puts "recipe: #{error.message}"
        failed = true
      end
    rescue StandardError => error
      puts "start handler: #{error.message}"
      failed = true
    end
    (failed ? exception_handlers : report_handlers).each do |handler|
      handler.failed = failed
      handler.report
    rescue StandardError => error
      puts "handler: #{error.message}"
    end
    # As chef-client ends.
    exit(failed ? 1 : 0)
  end
end

$stdout.sync = true
Client.new(ARGV[0]).run(ARGV[1])
`;

/** Writes the stand-in into the folder. @returns the command line of Ruby, and that of a run. */
export async function chefClient({ folder, write, puppetApply }: Toolbox) {
  mkdirSync(join(folder, 'chef'));
  write('chef/handler.rb', standIn);
  const [puppet = ''] = await puppetApply();
  const ruby = rubyOf(puppet, write);
  const file = write('client.rb', client);
  return {
    ruby,
    /** `config`: a part of client.rb; see above for `recipe`. */
    converge: (config: string, recipe: string) => [...ruby, '-I', folder, file, config, recipe],
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
