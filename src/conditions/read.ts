/** Reads all that conditions need, as of one moment (docs/protocol.md, "Conditions"). */
import type { Consul, Entry, ReadOptions, RetryOptions } from '../consul/consul.ts';
import { RunlockError } from '../errors.ts';
import { readInstances } from '../gate/read.ts';
import type { Instance } from '../gate/instances.ts';
import { claimKey, whileOf } from '../state/claims.ts';
import { prefixOf } from '../state/path.ts';
import { mapFew } from './few.ts';
import type { World } from './judge.ts';
import { checkCount } from './sources.ts';
import type { KeySource, Source } from './sources.ts';

export interface Look extends World {
  /** False: services changed so quickly that KV and services could not be read as of one moment. */
  readonly atOnce: boolean;
  /** The claims under which states of `--during` stand. */
  readonly claims: readonly KeySource[];
  /** Of Consul's store, where one key was all. */
  readonly index?: number;
}

/**
 * Keys and trees that the token is known to be allowed to read, so that an empty answer means that there are no keys.
 */
export type Proven = Set<string>;

/** How often to try to read KV and the services as of one moment. */
const TRIES = 5;

/**
 * Reads everything in KV by one consistent transaction. Reads services between two such transactions, which must be equal,
 * and reads several services twice.
 * @throws RunlockError `forbidden`, naming the rule: a key that may not be read never counts as missing.
 */
export async function look(
  consul: Consul,
  { sources, proven }: { readonly sources: readonly Source[]; readonly proven: Proven },
  options: RetryOptions,
): Promise<Look> {
  const only = onlyKey(sources);
  const whole = only && (await readOneKey(consul, only, options)).whole;
  if (whole) return whole;
  const services = sources.flatMap((source) => (source.kind === 'service' ? [source.service] : []));
  const keys = sources.flatMap((source) => (source.kind === 'service' ? [] : [source]));
  let { entries, claims } = await readStanding(consul, keys, options);
  if (services.length === 0) {
    await prove(consul, { keys: [...keys, ...claims], entries, proven }, options);
    return { entries, claims, instances: new Map(), atOnce: true };
  }
  for (let tries = 1; ; tries += 1) {
    const instances = await readServices(consul, { services, proven }, options);
    // The first service may have changed while the last was read. If a second read gives the same, all were so at once.
    const stood =
      services.length === 1 ||
      isSameServices(instances, await readServices(consul, { services, proven }, options));
    const again = await readStanding(consul, keys, options);
    const atOnce = stood && isSame(entries, again.entries);
    ({ entries, claims } = again);
    if (!atOnce && tries < TRIES) continue;
    await prove(consul, { keys: [...keys, ...claims], entries, proven }, options);
    return { entries, claims, instances, atOnce };
  }
}

/**
 * All keys, and with them the claims that states of `--during` name. These are known only once the states are read, so
 * then all are read again, until the states name the claims that were read with them.
 */
async function readStanding(
  consul: Consul,
  keys: readonly KeySource[],
  options: RetryOptions,
): Promise<Pick<Look, 'entries' | 'claims'>> {
  let claims: readonly KeySource[] = [];
  for (let tries = 1; tries <= CLAIM_TRIES; tries += 1) {
    const entries = await readKeys(consul, [...keys, ...claims], options);
    const named = claimsIn(keys, entries);
    if (named.every(({ key }) => claims.some((claim) => claim.key === key)))
      return { entries, claims: claims.filter(({ key }) => named.some((claim) => claim.key === key)) };
    claims = named;
  }
  throw new RunlockError('refused', 'the states of these conditions keep changing; try again');
}

/** Losing to other writers that often in a row is no longer chance. */
const CLAIM_TRIES = 10;

/** Each claim that a state names, once. @throws RunlockError `usage`: more than one transaction can read. */
function claimsIn(keys: readonly KeySource[], entries: readonly Entry[]): readonly KeySource[] {
  const claims = new Map<string, KeySource>();
  for (const { path, key: stateKey } of keys) {
    const entry = path === undefined ? undefined : entries.find(({ key }) => key === stateKey);
    const claim = entry && whileOf(entry);
    if (!claim) continue;
    const prefix = prefixOf(stateKey);
    const { key, rule } = claimKey(prefix, claim);
    claims.set(key, { kind: 'key', key, rule });
  }
  checkCount(keys.length + claims.size);
  return [...claims.values()];
}

/** The key, where conditions rest on one key alone. */
function onlyKey(sources: readonly Source[]): KeySource | undefined {
  const [only, ...others] = sources;
  return others.length === 0 && only?.kind === 'key' ? only : undefined;
}

/** What is read of one key alone. */
export interface OneKey {
  readonly entries: readonly Entry[];
  readonly index: number;
  /** All that is needed, unless a state names a claim that it stands under. */
  readonly whole: Look | undefined;
}

/** One key needs no transaction and no proof: its own read is of one moment, and refused to who may not read it. */
export async function readOneKey(consul: Consul, source: KeySource, options: ReadOptions): Promise<OneKey> {
  const { entry, index } = await consul.get(source.key, { ...options, rule: source.rule });
  const entries = entry ? [entry] : [];
  const isWhole = claimsIn([source], entries).length === 0;
  const whole = isWhole ? { entries, claims: [], instances: new Map(), atOnce: true, index } : undefined;
  return { entries, index, whole };
}

async function readKeys(
  consul: Consul,
  keys: readonly KeySource[],
  options: RetryOptions,
): Promise<readonly Entry[]> {
  if (keys.length === 0) return [];
  const found = await consul.readAll(
    keys.map(({ key }) => ({ verb: 'get-tree', key })),
    options,
  );
  // Reading a key as a tree also gives keys that begin like it, and two trees may share keys.
  const wanted = found.filter(({ key }) => keys.some((source) => isOf(source, key)));
  return [...new Map(wanted.map((entry) => [entry.key, entry])).values()];
}

export const isOf = (source: KeySource, key: string) =>
  source.kind === 'key' ? key === source.key : key.startsWith(source.key);

async function readServices(
  consul: Consul,
  { services, proven }: { readonly services: readonly string[]; readonly proven: Proven },
  options: RetryOptions,
): Promise<ReadonlyMap<string, readonly Instance[]>> {
  const unproven = services.filter((service) => !proven.has(service));
  const found = await mapFew(
    services,
    async (service) => [service, (await readInstances(consul, service, options)).value] as const,
  );
  await proveServices(consul, unproven, options);
  for (const service of unproven) proven.add(service);
  return new Map(found);
}

/** Consul hides instances that the token may not see; a name that only begins like one tells of all nodes. */
async function proveServices(
  consul: Consul,
  services: readonly string[],
  options: RetryOptions,
): Promise<void> {
  if (services.length === 0) return;
  const rights = services.flatMap((name) => [
    { resource: 'service', name, access: 'read' } as const,
    { resource: 'node', name: `${name}-nodes`, access: 'read' } as const,
  ]);
  const hidden = rights[(await consul.may(rights, options)).indexOf(false)];
  if (!hidden) return;
  const what = hidden.resource === 'service' ? `service "${hidden.name}"` : 'node_prefix ""';
  const why = 'it does not show all instances';
  throw consul.denied(`${what} { policy = "read" }`, why);
}

/**
 * A transaction omits keys that the token may not read. So ask for each missing key whether the token may read it. Of a
 * tree ask for a key that never exists, because single keys may be hidden.
 */
async function prove(
  consul: Consul,
  {
    keys,
    entries,
    proven,
  }: { readonly keys: readonly KeySource[]; readonly entries: readonly Entry[]; readonly proven: Proven },
  options: RetryOptions,
): Promise<void> {
  const unproven: { readonly name: string; readonly source: KeySource }[] = [];
  for (const source of keys) {
    const { kind, key } = source;
    // A key that exists now may be hidden later, if the token loses a right.
    if (kind === 'key' && entries.some((entry) => isOf(source, entry.key))) proven.delete(key);
    else if (!proven.has(key)) unproven.push({ name: kind === 'tree' ? `${key}.may-read` : key, source });
  }
  const rights = unproven.map(({ name }) => ({ resource: 'key', name, access: 'read' }) as const);
  // Of many, all by one request.
  const may = rights.length > 1 ? await consul.may(rights, options) : [];
  for (const [i, { name, source }] of unproven.entries()) {
    // Only a read is refused with Consul's own words, and again with a token that was replaced.
    if (may[i] !== true) await consul.get(name, { ...options, rule: source.rule });
    proven.add(source.key);
  }
}

const isSame = (before: readonly Entry[], after: readonly Entry[]) =>
  signatureOf(before) === signatureOf(after);

const isSameServices = (before: World['instances'], after: World['instances']) =>
  JSON.stringify([...before]) === JSON.stringify([...after]);

/** Two signatures are equal if nothing has changed between them. */
export const signatureOf = (entries: readonly Entry[]): string =>
  entries
    .map(({ key, modifyIndex, session }) => `${key} ${modifyIndex} ${session ?? ''}`)
    .sort()
    .join('\n');
