/** Keys of runs that wait without a slot, as they are stored. */
import { encode } from '../../src/lock/records.ts';

export interface Waits {
  readonly node: string;
  readonly group: string;
  readonly when?: readonly string[];
  readonly publish?: readonly string[];
  readonly during?: readonly string[];
  /** Beside `group`. */
  readonly also?: readonly string[];
  readonly gate?: object;
  readonly run?: string;
  readonly since?: string;
  readonly tries?: number;
}

export const outsideKey = ({ group, node }: Pick<Waits, 'group' | 'node'>, prefix = 'runlock') =>
  `${prefix}/${group}/.outside/${node}`;

export function outsideRecord({
  node,
  group,
  also = [],
  when = [],
  publish = [],
  during = [],
  ...more
}: Waits): string {
  const { run = `run-of-${node}`, since = new Date().toISOString() } = more;
  return encode({
    ...{ run, since, groups: [group, ...also], when, publish, during, command: 'chef-client' },
    ...(more.gate && { gate: more.gate }),
    ...(more.tries !== undefined && { tries: more.tries }),
  });
}
