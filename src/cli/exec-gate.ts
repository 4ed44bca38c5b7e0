/** `runlock exec`: the options of its health gate. */
import type { Option } from 'commander';
import type { ExecOptions } from '../commands/exec-deps.ts';
import type { GateChoice } from '../commands/exec-deps.ts';
import { parseDuration, parsePositiveDuration, usage } from '../options.ts';
import {
  agentOption,
  boundOptions,
  maintenanceOption,
  serviceOption,
  stableOption,
  toBounds,
} from './gate-options.ts';
import type { GateValues } from './gate-options.ts';
import { option } from './option.ts';

export const execGateOptions = (): Option[] => [
  serviceOption('run only while these services can do without the node; auto: all that it offers'),
  ...boundOptions(),
  stableOption(),
  maintenanceOption('take its services, or the whole node, out of service while the command runs'),
  option(
    '--settle <duration>',
    'time between maintenance and the start, for connections to drain',
    parseDuration,
    0,
    '0',
  ),
  option(
    '--healthy-within <duration>',
    'time that the services have afterwards to be healthy again; else exit 80',
    parsePositiveDuration,
  ),
  agentOption(),
];

export interface ExecGateValues extends GateValues {
  readonly maintenance?: 'service' | 'node';
  readonly settle: number;
  readonly healthyWithin?: number;
  readonly agent?: string;
  readonly node?: string;
}

/**
 * @param isFlag whether a flag says so: what the environment and the file say may be meant for other runs.
 * @throws RunlockError `usage`: what makes no sense without another option.
 */
export function gateOf(
  values: ExecGateValues,
  isFlag: (name: keyof ExecGateValues) => boolean,
): Pick<ExecOptions, 'gate'> {
  const { service, gateStable, maintenance, settle, healthyWithin, agent, node } = values;
  if (service === undefined) {
    if (isFlag('maintenance')) throw usage('--maintenance takes services out; name them with --service');
    if (isFlag('healthyWithin')) throw usage('--healthy-within looks at services; name them with --service');
    return {};
  }
  if (isFlag('settle') && maintenance === undefined)
    throw usage('--settle waits while the node is out of service; give --maintenance too, or use --splay');
  if (isFlag('agent') && node === undefined)
    throw usage('--agent says where another node is taken out of service; name that node with --node');
  const gate: GateChoice = {
    ...{ services: service, ...toBounds(values), stableMs: gateStable, settleMs: settle },
    ...(maintenance !== undefined && { maintenance }),
    ...(healthyWithin !== undefined && { healthyWithinMs: healthyWithin }),
    ...(agent !== undefined && { agent }),
  };
  return { gate };
}
