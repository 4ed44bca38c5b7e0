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
    .description(
      'check whether this node may go out of service now, take it out (enter), or put it back (leave)',
    )
    .addArgument(new Argument('<action>', 'check, enter or leave').choices(ACTIONS));
  addOptions(command, [
    serviceOption('services to check; auto: all services of the node; repeat for several'),
    ...boundOptions(),
    stableOption(),
    allowUnknownOption(),
    option(
      '-w, --wait <duration|forever>',
      'how long to wait for the gate to open; RUNLOCK_WAIT and the file do not apply',
      durationOr('forever'),
      0,
      '0',
    ),
    option(
      '--maintenance <service|node>',
      'what to put into maintenance: the services, or the whole node',
      parseScope,
      'service',
    ),
    option('--node <name>', "node to check (default: the agent's node)", parseNode),
    agentOption(),
    option(
      '-g, --group <path>',
      'group whose section of the configuration file applies',
      // `RUNLOCK_GROUP` may name several, for `exec`.
      parseGroups,
      ['default'],
      'default',
    ),
    ...lastOptions('print as JSON'),
  ]);
  command.addHelpText('after', GATE_HELP);
  command.action((action: Action) => {
    const values = withEnvironment(command, env) as Values & GateValues & Rest;
    const { service, gateStable, wait, maintenance, node, agent, json, prefix } = values;
    if (service === undefined)
      throw usage("name the services with --service, or --service auto; see 'runlock gate --help'");
    if (agent !== undefined && node === undefined)
      throw usage('--agent is the agent of another node; name that node with --node');
    const options: GateOptions & { json: boolean; agent?: string } = {
      action,
      prefix,
      services: service,
      bounds: toBounds(values),
      stableMs: gateStable,
      // In the environment and the file, `wait` is the wait for a slot.
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
The gate of a service is open for a node if, with this node offline too, at most --max-offline instances are offline and
at least --min-healthy are healthy. An instance is offline if it has a critical check, is in maintenance, or is on a node
in maintenance. A node that is offline itself may always run, because the run may repair it. The gate must be open twice,
--gate-stable apart, because a freshly started agent has not run its checks yet.

check changes nothing and reserves nothing. enter takes the node out of service while it holds a lock, and waits until the
catalogue shows this, so two nodes never enter on the same check. leave ends the maintenance that runlock has set, unless
an active run needs the maintenance; then that run ends it. Maintenance set by others stays. All three are safe to repeat.

A service without instances, and a node that is not in the catalogue, are an error (78) unless --allow-unknown-service is
given.

The health of other nodes comes from Consul's catalogue; to enter or leave for another node, give its agent with --agent.

Exit codes: 0 open, entered, left; 64 wrong usage; 69 Consul unreachable; 74 stdout could not be written; 75 closed
(stdout names the offline instances), or the gate's lock was taken for two minutes; 77 Consul denied access; 78 bad
configuration; 128+n killed by signal n.

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
