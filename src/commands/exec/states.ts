/** `--publish` and `--during`: the states that a run sets, and how many and how large one transaction takes them. */
import type { Command, Option } from 'commander';
import { valueIn } from '../../cli/config/apply.ts';
import { repeatedOption } from '../../cli/option.ts';
import { usage } from '../../cli/values.ts';
import type { ExecOptions } from '../../runner/options.ts';
import { parseSetting } from '../../state/setting.ts';
import type { Setting } from '../../state/setting.ts';
import { shortValue } from '../../state/words.ts';

export const stateOptions = (): Option[] => [
  repeatedOption(
    '--publish <path=value>',
    'set this state if the run succeeds, together with its record; repeat for several',
    parseSetting,
  ),
  repeatedOption(
    '--during <path=value>',
    'set this state from the start of the command until the slot is released; repeat for several',
    parseSetting,
  ),
];

/** Of all its groups, each path once. */
export function statesOf(
  command: Command,
  groups: readonly string[],
): Pick<ExecOptions, 'publish' | 'during'> {
  const [publish, during] = ['--publish', '--during'].map((flag) =>
    settingsOf(
      flag,
      groups.flatMap((group) => (valueIn(command, flag, group) ?? []) as readonly Setting[]),
    ),
  );
  checkOperations(groups.length, publish?.length ?? 0, during?.length ?? 0);
  return { ...(publish && { publish }), ...(during && { during }) };
}

/** @throws RunlockError `usage`: two values for one path. */
function settingsOf(flag: string, settings: readonly Setting[]): readonly Setting[] | undefined {
  const byPath = new Map<string, Setting>();
  for (const setting of settings) {
    const { path, value } = byPath.get(setting.path) ?? setting;
    if (value !== setting.value)
      throw usage(
        `${flag} sets ${path} twice, to ${shortValue(value)} and to ${shortValue(setting.value)}; keep one of them`,
      );
    byPath.set(path, setting);
  }
  return byPath.size === 0 ? undefined : [...byPath.values()];
}

/** A run ends in all its groups by one transaction, in which Consul allows 64 operations. */
const MOST_OPERATIONS = 64;

/**
 * A run starts its command by one transaction too, which compares the states of its conditions.
 * @throws RunlockError `usage`: it would have too many operations.
 */
export function checkStart(
  groups: number,
  { when = [], during = [] }: Pick<ExecOptions, 'when' | 'during'>,
): void {
  const states = new Set(when.flatMap((one) => (one.kind === 'state' ? one.path : []))).size;
  const room = MOST_OPERATIONS - 2 * groups - during.length;
  if (states <= room) return;
  throw usage(
    `--when names ${states} states, but the transaction that starts the command has room for ${room}; use fewer conditions, or publish one state for several of them`,
  );
}

function checkOperations(groups: number, publish: number, during: number): void {
  if (publish + during === 0) return;
  const states = MOST_OPERATIONS - 6 - 6 * groups;
  if (publish + during <= states) return;
  const many = `${groups} ${groups === 1 ? 'group' : 'groups'}`;
  throw usage(
    states <= 0
      ? `a run in ${many} can't publish: one transaction has room for 9 groups at most; use fewer groups, or take --publish and --during away`
      : `--publish and --during set ${publish + during} states, but with ${many} one transaction has room for ${states}; publish fewer states`,
  );
}

/** The longest request that Consul takes by default (`limits.txn_max_req_len`). */
const LONGEST_REQUEST = 524_288;
/** What a document has beside its value: node, run, group, times, ids. */
const FIELDS = 1_024;
/** What an operation has beside a state's document: its key, index and session, or a record of the run. */
const OPERATION = 1_024;

/**
 * Consul refuses a larger transaction, and would do so after the command.
 * @throws RunlockError `usage`: the transaction that starts or the one that ends the run would be too large.
 */
export function checkSize({
  prefix,
  publish = [],
  during = [],
}: Pick<ExecOptions, 'prefix' | 'publish' | 'during'>): void {
  const room = LONGEST_REQUEST - MOST_OPERATIONS * (OPERATION + prefix.length);
  const sizes = [
    ['--publish', sizeOf(publish)],
    ['--during', sizeOf(during)],
  ] as const;
  for (const [flag, size] of sizes)
    if (size > room)
      throw usage(
        `the states of ${flag} take ${figure(size)} bytes, as JSON in base64, but one transaction has room for ${figure(room)}; publish fewer or shorter values, or store the data elsewhere and publish its location`,
      );
}

const figure = (bytes: number) => bytes.toLocaleString('en-US');

/** As in the request: a character that JSON escapes takes up to 6 bytes, and base64 a third more. */
const sizeOf = (settings: readonly Setting[]): number =>
  settings
    .map(({ value }) => 4 * Math.ceil((Buffer.byteLength(JSON.stringify(value)) + FIELDS) / 3))
    .reduce((sum, size) => sum + size, 0);
