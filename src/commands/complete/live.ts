/** What completion looks up in Consul, with a short time limit and without error messages. */
import type { Consul } from '../../consul/consul.ts';
import type { WallClock } from '../../platform/deps.ts';
import { agentKey } from '../../jobs/keys.ts';
import { decodeAgent } from '../../jobs/records.ts';
import { groupKeys, parseKey } from '../../lock/keys.ts';
import { pathOf, statesBelow } from '../../state/path.ts';
import { isName } from '../../text/words.ts';
import { decodeClaim } from '../../lock/records.ts';
import { readJobs } from '../../view/read-jobs.ts';

export interface Candidate {
  readonly value: string;
  readonly about: string;
}

export interface LiveDeps {
  readonly clock: Pick<WallClock, 'sleep'>;
  readonly connect: () => Promise<Consul>;
}

export interface Where {
  readonly prefix: string;
  readonly groups: readonly string[];
  /** What the user has typed of the value. */
  readonly typed: string;
}

/** Short, because the user has pressed Tab and waits. */
const LOOKUP_MS = 500;

export const isGroup = (path: string) => path.split('/').every(isName);

/** What `look` finds; nothing if it fails or takes longer than the limit. */
export async function withinLimit(
  { clock, connect }: LiveDeps,
  look: (consul: Consul, signal: AbortSignal) => Promise<Candidate[]>,
): Promise<Candidate[]> {
  const done = new AbortController();
  const limit = new AbortController();
  try {
    const consul = await connect();
    const nothing = () => [];
    const late = clock.sleep(LOOKUP_MS, { signal: done.signal }).then(() => limit.abort(), nothing);
    const asked = look(consul, limit.signal).catch(nothing);
    const found = await Promise.race([asked, late.then(nothing)]);
    consul.close();
    return found;
  } catch {
    return [];
  } finally {
    done.abort();
  }
}

const once = (signal: AbortSignal) => ({ signal, timeoutMs: LOOKUP_MS, retryForMs: 0 });

export async function findGroups(
  consul: Consul,
  { prefix }: Where,
  signal: AbortSignal,
): Promise<Candidate[]> {
  const keys = await consul.keys(`${prefix}/`, once(signal));
  const groups = new Set<string>();
  for (const key of keys) {
    const parsed = parseKey(prefix, key);
    if (parsed && parsed.key.kind !== 'other' && isGroup(parsed.group)) groups.add(parsed.group);
  }
  return [...groups].map((value) => ({ value, about: 'group' }));
}

/** Nodes with a claim. Waiting runs have none. */
export async function findOwners(
  consul: Consul,
  { prefix, groups }: Where,
  signal: AbortSignal,
): Promise<Candidate[]> {
  const prefixes = groups.map((group) => groupKeys(prefix, group).slotPrefix);
  const lists = await Promise.all(prefixes.map((below) => consul.list(below, once(signal))));
  const owners = new Map<string, string>();
  for (const entry of lists.flatMap(({ entries }) => entries)) {
    if (parseKey(prefix, entry.key)?.key.kind !== 'owner') continue;
    try {
      const { node, state } = decodeClaim(entry);
      owners.set(node, state);
    } catch {
      // `status` reports what is wrong with it.
    }
  }
  return [...owners].map(([value, about]) => ({ value, about }));
}

/** Nodes whose last run is recorded in a group. */
export async function findRecorded(
  consul: Consul,
  { prefix, groups }: Where,
  signal: AbortSignal,
): Promise<Candidate[]> {
  const prefixes = groups.map((group) => groupKeys(prefix, group).run(''));
  const keys = await Promise.all(prefixes.map((below) => consul.keys(below, once(signal))));
  const parsed = keys.flat().map((key) => parseKey(prefix, key)?.key);
  const nodes = new Set(parsed.flatMap((key) => (key?.kind === 'run' && isName(key.node) ? [key.node] : [])));
  return [...nodes].map((value) => ({ value, about: 'has run in this group' }));
}

/** Paths of states, including expired ones. */
export async function findStates(
  consul: Consul,
  { prefix, typed }: Where,
  signal: AbortSignal,
): Promise<Candidate[]> {
  // Ask only for what can still be meant: there may be thousands of states.
  const folder = /^(?:[\w.-]+\/)*/.exec(typed)?.[0] ?? '';
  const keys = await consul.keys(`${statesBelow(prefix)}${folder}`, once(signal));
  const paths = keys.flatMap((key) => pathOf(prefix, key) ?? []);
  return paths.map((value) => ({ value, about: 'state' }));
}

/** Nodes whose agents are there. */
export async function findAgents(
  consul: Consul,
  { prefix }: Where,
  signal: AbortSignal,
): Promise<Candidate[]> {
  const below = agentKey(prefix, '');
  const names = (await consul.keys(below, once(signal))).map((key) => key.slice(below.length));
  return names.filter(isName).map((value) => ({ value, about: 'its agent is running' }));
}

/** Tasks that somebody may ask for, of any node. */
export async function findAskable(
  consul: Consul,
  { prefix }: Where,
  signal: AbortSignal,
): Promise<Candidate[]> {
  const { entries } = await consul.list(agentKey(prefix, ''), once(signal));
  const tasks = new Map<string, string>();
  for (const entry of entries) {
    try {
      for (const { name, allow, description } of decodeAgent(entry).tasks)
        if (allow.length > 0) tasks.set(name, description ?? 'task');
    } catch {
      // `status --node` reports what is wrong with it.
    }
  }
  return [...tasks].map(([value, about]) => ({ value, about }));
}

/** Jobs of all principals. */
export async function findJobs(consul: Consul, { prefix }: Where, signal: AbortSignal): Promise<Candidate[]> {
  const { jobs } = await readJobs(consul, { prefix, nowMs: 0, isCounted: false }, once(signal));
  return jobs.map(({ job, task, state }) => ({ value: job, about: `${task}, ${state ?? 'unknown'}` }));
}
