/** Reads what tells for what runs wait without a slot. */
import { idOf } from '../conditions/sources.ts';
import type { KeySource, Source } from '../conditions/sources.ts';
import type { Consul, Entry, Right, RetryOptions } from '../consul/consul.ts';
import { isRunlockError } from '../errors.ts';
import type { Instance } from '../gate/instances.ts';
import { readInstances } from '../gate/read.ts';
import { claimsOfStates, lookup, wholePrefix } from './waits.ts';
import type { WaitFacts } from './waits.ts';

/** What a transaction takes. */
const MOST_READS = 64;
/** An agent allows one client 200 connections. */
const MOST_AT_ONCE = 16;

export interface WaitReading {
  readonly prefix: string;
  readonly sources: readonly Source[];
  /** Everything below the prefix, if that was read; each key is looked for there then. */
  readonly everything: readonly Entry[] | undefined;
}

/**
 * Reads each source once: keys in as few transactions as it takes. What this token may not read is refused, one by one,
 * and never taken for what is not there.
 * @throws RunlockError when Consul can't be reached.
 */
export async function readWaits(
  consul: Consul,
  { prefix, sources, everything }: WaitReading,
  options: RetryOptions,
): Promise<WaitFacts> {
  const keys = sources.filter((source) => source.kind !== 'service');
  const services = sources.flatMap((source) => (source.kind === 'service' ? [source.service] : []));
  const [known, found] = await Promise.all([
    everything ?? readKeys(consul, keys, options),
    readServices(consul, services, options),
  ]);
  const claims = claimsOfStates(prefix, sources, lookup(known));
  // Which claims states of `--during` name shows only when these are read: then both are read together.
  const entries =
    everything || claims.length === 0 ? known : await readKeys(consul, [...claims, ...keys], options);
  const whole = everything ? [wholePrefix(prefix)] : [];
  const refused = await findRefused(consul, [...sources, ...claims, ...whole], { ...options, entries });
  const isPartial = !everything || whole.some((source) => refused.has(idOf(source)));
  const facts = { entries, instances: found, refused, unread: new Set<string>() };
  return isPartial ? { ...facts, isPartial } : facts;
}

async function readKeys(
  consul: Consul,
  keys: readonly KeySource[],
  options: RetryOptions,
): Promise<readonly Entry[]> {
  const found = new Map<string, Entry>();
  for (let from = 0; from < keys.length; from += MOST_READS) {
    const reads = keys.slice(from, from + MOST_READS).map(({ key }) => ({ verb: 'get-tree', key }) as const);
    for (const entry of await consul.readAll(reads, options)) found.set(entry.key, entry);
  }
  return [...found.values()];
}

/** A service that may not be read is refused by `findRefused`. */
async function readServices(
  consul: Consul,
  services: readonly string[],
  options: RetryOptions,
): Promise<ReadonlyMap<string, readonly Instance[]>> {
  const found = new Map<string, readonly Instance[]>();
  const left = [...services];
  const readSome = async () => {
    for (let next = left.pop(); next !== undefined; next = left.pop())
      found.set(next, await readService(consul, next, options));
  };
  await Promise.all(Array.from({ length: Math.min(MOST_AT_ONCE, services.length) }, readSome));
  return found;
}

export async function readService(
  consul: Consul,
  service: string,
  options: RetryOptions,
): Promise<readonly Instance[]> {
  try {
    return (await readInstances(consul, service, options)).value;
  } catch (error) {
    if (!isRunlockError(error, 'forbidden')) throw error;
    return [];
  }
}

/** Of what is not there: what this token may not read. By `idOf` its source, the rule that it needs. */
export async function findRefused(
  consul: Consul,
  sources: readonly Source[],
  { entries, ...options }: RetryOptions & { readonly entries: readonly Entry[] },
): Promise<ReadonlyMap<string, string>> {
  const keys = new Set(entries.map(({ key }) => key));
  const asked = sources
    .filter((source) => source.kind !== 'key' || !keys.has(source.key))
    .flatMap((source) => rightsOf(source).map((right) => ({ source, ...right })));
  if (asked.length === 0) return new Map();
  const answers = await consul.may(
    asked.map(({ right }) => right),
    options,
  );
  const refused = new Map<string, string>();
  for (const [i, { source, right, rule }] of asked.entries()) {
    // Without an answer Consul does not know the question, and the key itself is asked for.
    const may =
      answers[i] ?? (right.resource !== 'key' || (await mayGet(consul, { key: right.name, rule }, options)));
    if (!may && !refused.has(idOf(source))) refused.set(idOf(source), rule);
  }
  return refused;
}

async function mayGet(
  consul: Consul,
  { key, rule }: { readonly key: string; readonly rule: string },
  options: RetryOptions,
): Promise<boolean> {
  try {
    await consul.get(key, { ...options, rule });
    return true;
  } catch (error) {
    if (!isRunlockError(error, 'forbidden')) throw error;
    return false;
  }
}

/** Of a tree it is the right to read a key that is never there: single ones may be hidden from its listing. */
function rightsOf(source: Source): { readonly right: Right; readonly rule: string }[] {
  const read = (resource: Right['resource'], name: string): Right => ({ resource, name, access: 'read' });
  if (source.kind === 'service') {
    const { service } = source;
    return [
      { right: read('service', service), rule: `service "${service}" { policy = "read" }` },
      { right: read('node', `${service}-nodes`), rule: 'node_prefix "" { policy = "read" }' },
    ];
  }
  const { kind, key } = source;
  const { rule } = source;
  return [{ right: read('key', kind === 'tree' ? `${key}.may-read` : key), rule }];
}
