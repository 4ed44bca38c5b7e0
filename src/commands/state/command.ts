/** `runlock state`: its options. */
import { Argument } from 'commander';
import type { Command } from 'commander';
import { parseFlag, parsePositiveDuration, usage } from '../../cli/values.ts';
import { register } from '../../cli/command.ts';
import type { Asked, Defining } from '../../cli/command.ts';
import { addOptions, lastOptions, option, toCommon, withEnvironment } from '../../cli/option.ts';
import type { Values } from '../../cli/option.ts';
import { pathFault } from '../../state/path.ts';
import type { Platform } from '../platform.ts';
import type { StateOptions, StateRequest } from './run.ts';

const ACTIONS = ['set', 'get', 'list', 'delete', 'watch', 'prune'] as const;
type Action = (typeof ACTIONS)[number];

export const state = register({
  name: 'state',
  define,
  run: async (asked: Asked<StateOptions>, platform: Platform) =>
    (await import('./run.ts')).run(asked, platform),
});

function define(program: Command, { env }: Defining, done: (asked: Asked<StateOptions>) => void): void {
  const command = program
    .command('state')
    .description('set, read and watch states: short texts that nodes publish for each other')
    .addArgument(new Argument('<action>', 'set, get, list, delete, watch or prune').choices(ACTIONS))
    .argument('[path...]', 'path of the state, such as db/schema; for set, followed by the value');
  addOptions(command, [
    option('--ttl <duration>', 'with set: how long the state lasts', parsePositiveDuration),
    option('--if-value <text>', 'with set: only if the state has this value now', (text) => text),
    option('--if-absent', 'with set: only if the state is not set', parseFlag, false),
    option('--touch', 'with set: wake waiters even if the value is the same', parseFlag, false),
    ...lastOptions('print as JSON; with watch, one line for each change'),
  ]);
  command.addHelpText('after', STATE_HELP);
  command.action((action: Action, words: string[]) => {
    const values = withEnvironment(command, env) as Values & StateValues;
    checkOptions(action, (name) => command.getOptionValueSource(name) === 'cli');
    const { prefix, json } = values;
    const options: StateOptions = { prefix, json, ...requestOf(action, words, values) };
    done({ common: toCommon(values), options: Object.freeze(options) });
  });
}

/** Options of `set` are refused elsewhere, but only on the command line: the environment may hold them for `set`. */
function checkOptions(action: Action, given: (name: string) => boolean): void {
  const [wrong] = action === 'set' ? [] : Object.keys(OF_SET).filter(given);
  if (wrong !== undefined) throw usage(`${OF_SET[wrong] ?? wrong} is for 'state set' only`);
}

const OF_SET: Readonly<Record<string, string>> = {
  ttl: '--ttl',
  ifValue: '--if-value',
  ifAbsent: '--if-absent',
  touch: '--touch',
};

function requestOf(action: Action, words: readonly string[], values: StateValues): StateRequest {
  switch (action) {
    case 'set': {
      const [path, value, ...more] = words;
      if (path === undefined || value === undefined || more.length > 0)
        throw usage(
          "state set takes a path and a value, as in 'runlock state set db/schema 42'; quote a value that has spaces",
        );
      return { action, path: checkedPath(path), value, ...toOnly(values), ...toTtl(values) };
    }
    case 'get':
    case 'delete':
      return { action, path: checkedPath(only(action, words)) };
    case 'list': {
      const [below, ...more] = words;
      if (more.length > 0) throw usage('state list takes one path at most');
      // Accept a folder as people write it: db/.
      return { action, below: below === undefined ? '' : checkedPath(below.replace(/\/$/, ''), below) };
    }
    case 'watch':
      return { action, paths: fewEnough([...new Set(words.map((path) => checkedPath(path)))]) };
    case 'prune':
      if (words.length > 0) throw usage('state prune takes no path: it deletes every state that has ended');
      return { action };
  }
}

/** Each path takes a connection. Consul accepts 200 from a host, whose runs also need some to renew their sessions. */
const MOST_WATCHED = 64;

function fewEnough(paths: readonly string[]): readonly string[] {
  if (paths.length <= MOST_WATCHED) return paths;
  throw usage(
    `state watch follows at most ${MOST_WATCHED} paths, not ${paths.length}; give fewer, or none to follow all states`,
  );
}

function only(action: Action, words: readonly string[]): string {
  const [path, ...more] = words;
  if (path === undefined || more.length > 0)
    throw usage(`state ${action} takes one path; see 'runlock state --help'`);
  return path;
}

function checkedPath(path: string, typed = path): string {
  const fault = pathFault(path, typed);
  if (fault !== undefined) throw usage(fault);
  return path;
}

function toOnly({ ifValue, ifAbsent, touch }: StateValues) {
  if (ifValue !== undefined && ifAbsent) throw usage('--if-value and --if-absent exclude each other');
  if (ifAbsent) return { touch, only: { if: 'absent' } as const };
  return ifValue === undefined ? { touch } : { touch, only: { if: 'value', value: ifValue } as const };
}

const toTtl = ({ ttl }: StateValues) => (ttl === undefined ? {} : { ttlMs: ttl });

const STATE_HELP = `
A state is a short text under a path, such as db/schema = 42: what a node has reached, for others to read or to wait for
('runlock wait'). A state keeps only its latest value, not a series of events.

  set PATH VALUE   publish a value of up to 4,096 bytes of UTF-8; with - as the value, read stdin to its end (and drop
                   a line break there); empty or closed stdin is refused. Setting the same value again wakes no waiter,
                   unless --touch is given; if the --ttl differs, only the end of the state changes. Write -- before
                   PATH if the value starts with a hyphen: runlock state set -- temperature -5
  get PATH         print the value
  list [PATH]      the states at a path and below it, or all
  delete PATH      end a state now, even if this version can't read it
  watch [PATH...]  print each state now and after each change, until Ctrl-C, or until the next line if stdout is a pipe
                   that nobody reads any more
  prune            delete the states that have ended, and what waiters left beside states that are not set

After its --ttl a state counts as not set. Readers may see the state for 5 s more, because hosts' clocks may differ.

list, watch and prune name each state that this version can't read, and go on with the others.

Exit codes: 0; 1 not set (get), or not as --if-value or --if-absent asks (set); 64 wrong usage; 69 Consul unreachable, or
an answer was lost and it is unknown whether the state was changed; 74 stdout could not be written (set, delete, prune: the
change is done); 75 the state keeps changing; 77 Consul denied access; 78 bad configuration, or a value that this version
can't read (get, set); 128+n killed by signal n.

Examples:
  runlock state set db/schema 42
  runlock state set db/schema 42 --if-value 41
  runlock state set web/backends - --ttl 1h <backends.txt
  runlock state get db/schema
  runlock state list db/
  runlock state watch db/schema --json`;

interface StateValues {
  prefix: string;
  json: boolean;
  ttl?: number;
  ifValue?: string;
  ifAbsent: boolean;
  touch: boolean;
}
