/** Options of the health gate, for every command that uses it; `exec` has all of them. */
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

/** Option values, as `gateOptions` declares them. */
export interface GateValues {
  readonly service?: readonly string[];
  readonly maxOffline: number | { readonly percent: number };
  readonly minHealthy?: number;
  readonly gateStable: number;
  /** Absent if the command has no such option. */
  readonly allowUnknownService?: boolean;
}

export function serviceOption(description: string): Option {
  const made = option('--service <list|auto>', description, parseServices);
  const parse = checked(parseServices, made);
  return made.argParser((text, before: readonly string[] | undefined) => [
    ...new Set([...(before ?? []), ...parse(text)]),
  ]);
}

/** How many instances may be offline, and for how long the gate must stay open. */
export const boundOptions = () => [
  option('--max-offline <n|p%>', "max instances offline, counting this node's", parseMaxOffline, 1),
  option('--min-healthy <n>', 'min instances of a service that must stay healthy', wholeNumber(0, 1_000_000)),
];

export const stableOption = () =>
  option(
    '--gate-stable <duration>',
    'how long the gate must stay open before the run starts; 0: check once',
    parseDuration,
    5_000,
    '5s',
  );

export const allowUnknownOption = () =>
  option(
    '--allow-unknown-service',
    'continue if a service has no instances, or Consul does not know the node (first deployment)',
    parseFlag,
    false,
  );

export const maintenanceOption = (description: string) =>
  option('--maintenance [service|node]', description, parseScope).preset('service');

export const agentOption = () =>
  option(
    '--agent <address>',
    "address of the node's Consul agent, if it is not the local one",
    (text) => text,
  );

/** The bounds that the option values set. */
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
  serviceOption('run only while these services can spare the node; auto: all services of the node'),
  ...boundOptions(),
  stableOption(),
  allowUnknownOption(),
  maintenanceOption('put these services, or the whole node, into maintenance while the command runs'),
  option(
    '--settle <duration>',
    'how long to wait after maintenance starts, for connections to drain',
    parseDuration,
    0,
    '0',
  ),
  option(
    '--healthy-within <duration>',
    'how long the services may take to become healthy after the command; else exit 80',
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

/** Options that need --service, because without services there is no gate. */
const NEED_SERVICES = [
  ['maintenance', '--maintenance'],
  ['healthyWithin', '--healthy-within'],
  ['maxOffline', '--max-offline'],
  ['minHealthy', '--min-healthy'],
  ['gateStable', '--gate-stable'],
  ['allowUnknownService', '--allow-unknown-service'],
  ['settle', '--settle'],
  ['agent', '--agent'],
] as const;

/**
 * @param isFlag whether a flag set the option; the environment and the file may mean other runs.
 * @throws RunlockError `usage`: an option needs another one that is missing.
 */
export function gateOf(
  values: ExecGateValues,
  isFlag: (name: keyof ExecGateValues) => boolean,
): Pick<ExecOptions, 'gate'> {
  const { service, gateStable, maintenance, settle, healthyWithin, agent, node } = values;
  if (service === undefined) {
    const alone = NEED_SERVICES.find(([name]) => isFlag(name));
    if (alone) throw usage(`${alone[1]} needs --service`);
    return {};
  }
  if (isFlag('settle') && maintenance === undefined)
    throw usage('--settle needs --maintenance; for a delay before the run use --splay');
  if (isFlag('agent') && node === undefined)
    throw usage('--agent is the agent of another node; name that node with --node');
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
