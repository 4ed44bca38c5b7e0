/** Options of the health gate, for every command that looks at it. */
import type { Option } from 'commander';
import type { GateChoice } from '../runner/options.ts';
import {
  parseDuration,
  parseFlag,
  parseMaxOffline,
  parseScope,
  parseServices,
  wholeNumber,
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
  const parse = checked(parseServices);
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
