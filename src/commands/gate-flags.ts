/** Options of the health gate, for every command that looks at it; of `exec` all of them. */
import type { Option } from 'commander';
import type { GateChoice, ExecOptions } from '../runner/options.ts';
import {
  parseDuration,
  parseFlag,
  parseMaxOffline,
  parseScope,
  parseServices,
  wholeNumber,
  parsePositiveDuration,
  usage,
} from '../cli/values.ts';
import { checked, option } from '../cli/option.ts';

/** Stored values, as `gateOptions` declares them. */
export interface GateValues {
  readonly service?: readonly string[];
  readonly maxOffline: number | { readonly percent: number };
  readonly minHealthy?: number;
  readonly gateStable: number;
  /** Absent where a command has no such option. */
  readonly allowUnknownService?: boolean;
}

export function serviceOption(description: string): Option {
  const made = option('--service <list|auto>', description, parseServices);
  const parse = checked(parseServices, made);
  return made.argParser((text, before: readonly string[] | undefined) => [
    ...new Set([...(before ?? []), ...parse(text)]),
  ]);
}

/** How many instances may be offline, and for how long that must have been seen. */
export const boundOptions = () => [
  option(
    '--max-offline <n|p%>',
    'how many instances of a service may be offline, those of this node among them',
    parseMaxOffline,
    1,
  ),
  option('--min-healthy <n>', 'how many instances of a service must stay healthy', wholeNumber(0, 1_000_000)),
];

export const stableOption = () =>
  option(
    '--gate-stable <duration>',
    'how long the gate must have been open; 0: one look is enough',
    parseDuration,
    5_000,
    '5s',
  );

export const allowUnknownOption = () =>
  option(
    '--allow-unknown-service',
    'go on where nobody offers a service, or Consul does not know the node (first deployment)',
    parseFlag,
    false,
  );

export const maintenanceOption = (description: string) =>
  option('--maintenance [service|node]', description, parseScope).preset('service');

export const agentOption = () =>
  option(
    '--agent <address>',
    "address of the node's own Consul agent, where that is not the local one",
    (text) => text,
  );

/** What the values say of how many may be offline. */
export function toBounds({
  maxOffline,
  minHealthy,
  allowUnknownService,
}: GateValues): Pick<GateChoice, 'maxOffline' | 'minHealthy' | 'allowUnknown'> {
  return {
    maxOffline,
    ...(minHealthy !== undefined && { minHealthy }),
    ...(allowUnknownService && { allowUnknown: true }),
  };
}

export const execGateOptions = (): Option[] => [
  serviceOption('run only while these services can do without the node; auto: all that it offers'),
  ...boundOptions(),
  stableOption(),
  allowUnknownOption(),
  maintenanceOption(
    'take its services, or the whole node (then all that it offers counts), out of service while the command runs',
  ),
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

/** What each of these does with services: a run that was given one and names none would go through no gate at all. */
const NEED_SERVICES = [
  ['maintenance', '--maintenance takes services out'],
  ['healthyWithin', '--healthy-within looks at services'],
  ['maxOffline', '--max-offline says how many instances of services may be offline'],
  ['minHealthy', '--min-healthy says how many instances of services must stay healthy'],
  ['gateStable', '--gate-stable says for how long the gate of services must have been open'],
  ['allowUnknownService', '--allow-unknown-service says that nobody need offer a service'],
  ['settle', '--settle waits while services are out'],
  ['agent', '--agent says where services are taken out'],
] as const;

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
    const alone = NEED_SERVICES.find(([name]) => isFlag(name));
    if (alone) throw usage(`${alone[1]}; name them with --service`);
    return {};
  }
  if (isFlag('settle') && maintenance === undefined)
    throw usage('--settle waits while the node is out of service; give --maintenance too, or use --splay');
  if (isFlag('agent') && node === undefined)
    throw usage('--agent says where another node is taken out of service; name that node with --node');
  const gate: GateChoice = {
    services: service,
    ...toBounds(values),
    stableMs: gateStable,
    settleMs: settle,
    ...(maintenance !== undefined && { maintenance }),
    ...(healthyWithin !== undefined && { healthyWithinMs: healthyWithin }),
    ...(agent !== undefined && { agent }),
  };
  return { gate };
}
