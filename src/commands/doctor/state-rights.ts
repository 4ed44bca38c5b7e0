/** Tries the rights that runs need for their conditions and for the states that they publish, without changing anything. */
import type { Condition } from '../../conditions/parse.ts';
import { sourcesOf } from '../../conditions/sources.ts';
import type { Source } from '../../conditions/sources.ts';
import type { Consul } from '../../consul/consul.ts';
import { isRunlockError } from '../../errors.ts';
import type { GroupKeys } from '../../lock/keys.ts';
import { stateKey, stateRule } from '../../state/path.ts';
import type { Check } from '../../output/doctor.ts';
import { once, problem } from './contact.ts';
import { tryWrite } from './rights.ts';
import type { Tried } from './rights.ts';

/** The conditions that a group's runs wait for, and the states that they publish. */
export interface DoctorStates {
  readonly group: string;
  readonly when: readonly Condition[];
  /** Paths of states. */
  readonly published: readonly string[];
}

export interface StateRights {
  readonly prefix: string;
  readonly states: readonly DoctorStates[];
  /** The groups whose keys are tried in any case. */
  readonly groups: readonly GroupKeys[];
  readonly signal: AbortSignal;
}

/** None for groups whose runs neither wait nor publish. `healthy:` needs what a health gate needs (`watchedServices`). */
export async function tryStateRights(consul: Consul, asked: StateRights): Promise<readonly Check[]> {
  const { signal } = asked;
  try {
    const [written, read] = await Promise.all([
      Promise.all(writesOf(asked).map((each) => tryWrite(consul, each, signal))),
      Promise.all(readsOf(asked).map((each) => tryRead(consul, each, signal))),
    ]);
    // The right to write includes the right to read: one rule for a folder is enough.
    const named = new Set(written.map(({ fix }) => fix));
    return [...written, ...read.filter(({ fix }) => !fix || !named.has(fix.replace('"read"', '"write"')))];
  } catch (error) {
    return [problem('rights', error)];
  }
}

/** The services of `healthy:` conditions. */
export const watchedServices = (states: readonly DoctorStates[]): readonly string[] => [
  ...new Set(
    states.flatMap(({ when }) => when.flatMap((each) => (each.kind === 'healthy' ? [each.service] : []))),
  ),
];

function writesOf({ prefix, states }: StateRights): readonly Tried[] {
  const paths = [...new Set(states.flatMap(({ published }) => published))];
  return byRule(paths.map((path) => [stateRule(prefix, path, 'write'), stateKey(prefix, path)]));
}

type KeySource = Exclude<Source, { kind: 'service' }>;

function readsOf({ prefix, states, groups }: StateRights): readonly Tried[] {
  const published = new Set(states.flatMap((each) => each.published));
  const isTried = ({ key, path }: KeySource) =>
    (path !== undefined && published.has(path)) ||
    groups.some((keys) => key.startsWith(keys.prefix) || keys.freezes.includes(key));
  const sources = states
    .flatMap(({ group, when }) => sourcesOf(when, { prefix, groups: [group] }))
    .flatMap((source) => (source.kind === 'service' || isTried(source) ? [] : [source]));
  // Consul leaves forbidden keys out of a tree without an error; a single key is refused.
  return byRule(sources.map(({ kind, key, rule }) => [rule, kind === 'tree' ? `${key}.may-read` : key]));
}

/** Each rule once, without its access level, with all keys that need it. */
function byRule(pairs: readonly (readonly [rule: string, key: string])[]): readonly Tried[] {
  const found = new Map<string, Set<string>>();
  for (const [rule, key] of pairs) {
    const name = rule.replace(/ \{.*$/, '');
    found.set(name, (found.get(name) ?? new Set()).add(key));
  }
  return [...found].map(([rule, keys]) => ({ rule, keys: [...keys] }));
}

async function tryRead(consul: Consul, { keys, rule }: Tried, signal: AbortSignal): Promise<Check> {
  try {
    await Promise.all(keys.map((key) => consul.get(key, once(signal))));
    return { check: 'rights', level: 'ok', found: `${rule}: read` };
  } catch (error) {
    if (!isRunlockError(error, 'forbidden')) return problem('rights', error);
    const fix = `add to the token's policy: ${rule} { policy = "read" }`;
    return { check: 'rights', level: 'problem', found: `${rule}: read denied`, fix };
  }
}
