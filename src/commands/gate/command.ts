/** `runlock gate`: its options. */
import { Argument } from 'commander';
import type { Command } from 'commander';
import type { GateOptions } from './gate.ts';
import { durationOr, parseGroups, parseNode, parseScope, usage } from '../../cli/values.ts';
import {
  agentOption,
  allowUnknownOption,
  boundOptions,
  serviceOption,
  stableOption,
  toBounds,
} from '../gate-flags.ts';
import type { GateValues } from '../gate-flags.ts';
import { register } from '../../cli/command.ts';
import type { Defining } from '../../cli/command.ts';
import { addOptions, lastOptions, option, toCommon, withEnvironment } from '../../cli/option.ts';
import type { Values } from '../../cli/option.ts';
import type { Platform } from '../platform.ts';
import type { GateAsked } from './run.ts';

const ACTIONS = ['check', 'enter', 'leave'] as const;
type Action = (typeof ACTIONS)[number];

export const gate = register({
  name: 'gate',
  define,
  run: async (asked: GateAsked, platform: Platform) => (await import('./run.ts')).run(asked, platform),
});

function define(program: Command, { env }: Defining, done: (asked: GateAsked) => void): void {
  const command = program
    .command('gate')
    .description('may this node go out of service now (check)? Take it out (enter), and put it back (leave)')
    .addArgument(new Argument('<action>', 'check, enter or leave').choices(ACTIONS));
  addOptions(command, [
    serviceOption('the services; auto: all that the node offers; can be given several times'),
    ...boundOptions(),
    stableOption(),
    allowUnknownOption(),
    option(
      '-w, --wait <duration|forever>',
      'how long to wait until it is open; neither RUNLOCK_WAIT nor the file counts here',
      durationOr('forever'),
      0,
      '0',
    ),
    option(
      '--maintenance <service|node>',
      'what goes into maintenance; node: all that it offers counts',
      parseScope,
      'service',
    ),
    option('--node <name>', "the node (default: the agent's node name)", parseNode),
    agentOption(),
    option(
      '-g, --group <path>',
      'whose section of the configuration file counts',
      // `RUNLOCK_GROUP` may name several, for `exec`.
      parseGroups,
      ['default'],
      'default',
    ),
    ...lastOptions('the same data as JSON'),
  ]);
  command.addHelpText('after', GATE_HELP);
  command.action((action: Action) => {
    const values = withEnvironment(command, env) as Values & GateValues & Rest;
    const { service, gateStable, wait, maintenance, node, agent, json, prefix } = values;
    if (service === undefined)
      throw usage("name the services with --service, or --service auto; see 'runlock gate --help'");
    if (agent !== undefined && node === undefined)
      throw usage('--agent says where another node is taken out of service; name that node with --node');
    const options: GateOptions & { json: boolean; agent?: string } = {
      action,
      prefix,
      services: service,
      bounds: toBounds(values),
      stableMs: gateStable,
      // What the environment and the file say of waiting is said of slots.
      wait: command.getOptionValueSource('wait') === 'cli' ? wait : 0,
      scope: maintenance,
      json,
      ...(node !== undefined && { node }),
      ...(agent !== undefined && { agent }),
    };
    done({ common: toCommon(values), options: Object.freeze(options) });
  });
}

const GATE_HELP = `
The gate of a service is open for a node if, with this node offline too, at most --max-offline of its instances are, and
at least --min-healthy are not. Offline is what has a critical check, or is in maintenance, or on a node that is. A node
that is offline itself may always run: that may be the cure. The gate must be seen open twice, --gate-stable apart, since
an agent that has just been started has not checked anything yet.

check changes nothing, and keeps nobody out. enter looks, takes the node out of service and waits until all can see
that, under a lock, so that two that enter at the same time never both go by the same look. leave puts back what runlock
has taken out, unless a run needs it that is under way: that one ends it. What somebody else has set stays. Each can be
called again.

What Consul does not know is not open: a service that nobody offers, and a node that is not in the catalogue, are refused
(78) unless --allow-unknown-service says that they may come later.

Another node than the local agent's is judged by the catalogue; to enter and leave for it, name its agent by --agent.

Exit codes: 0 open, entered, left; 64 wrong usage; 69 Consul not reachable; 74 stdout could not be written;
75 closed (stdout says for whom it waits), or another kept the gate's lock for two minutes; 77 Consul refused; 78 bad
configuration; 128+n ended by signal n.

Examples:
  runlock gate check --service web
  runlock gate enter --service web --max-offline 25% --wait 30m
  runlock gate leave --service web
  runlock gate check --service auto --node web01 --json`;

interface Rest {
  readonly wait: number | 'forever';
  readonly maintenance: 'service' | 'node';
  readonly node?: string;
  readonly agent?: string;
  readonly json: boolean;
  readonly prefix: string;
}
