/** Which nodes are meant: looked up once, at the start of a job. All that is asked for narrows. */
import type { Consul, RetryOptions } from '../consul/consul.ts';
import { RunlockError, isRunlockError } from '../errors.ts';
import { groupKeys } from '../lock/keys.ts';
import { visible } from '../text/visible.ts';
import { isName } from '../text/words.ts';
import type { Selection } from './documents.ts';
import { jobText } from './keys.ts';
import type { JobRef } from './keys.ts';
import type { ShownState } from './stage.ts';
import { viewJob } from './view.ts';

/** What a start says of its targets; at least one of all. */
export interface Wanted {
  readonly nodes?: readonly string[];
  readonly service?: string;
  /** An instance has all of them. */
  readonly tags?: readonly string[];
  readonly meta?: ReadonlyMap<string, string>;
  readonly filter?: string;
  readonly group?: string;
  readonly from?: FromJob;
}

/** Targets of another job. No states: all of them. */
export interface FromJob {
  readonly ref: JobRef;
  readonly states: readonly ShownState[];
}

export interface Finder {
  readonly consul: Consul;
  readonly prefix: string;
}

/**
 * Sorted, each once.
 * @throws RunlockError `config`: a name can't be that of a target, there is no such job; `usage`: Consul
 * does not understand the filter; `forbidden`, naming the rule: what may not be read never counts as nobody.
 */
export async function findNodes(
  finder: Finder,
  wanted: Wanted,
  options: RetryOptions,
): Promise<readonly string[]> {
  const sources = [
    wanted.nodes,
    asksCatalogue(wanted) ? await inCatalogue(finder, wanted, options) : undefined,
    wanted.group === undefined ? undefined : await withRecord(finder, wanted.group, options),
    wanted.from ? await ofJob(finder, wanted.from, options) : undefined,
  ].filter((names) => names !== undefined);
  const [first = [], ...others] = sources.map((names) => new Set(names));
  const found = [...first].filter((name) => others.every((names) => names.has(name))).sort();
  const odd = found.find((name) => !isName(name));
  if (odd !== undefined)
    throw new RunlockError(
      'config',
      `node '${visible(odd)}' of Consul's catalogue can't be a target, because a node's name has only letters, digits, '.', '_' and '-'; leave it out with --filter`,
    );
  return found;
}

const asksCatalogue = ({ service, tags = [], meta, filter }: Wanted): boolean =>
  service !== undefined || tags.length > 0 || (meta?.size ?? 0) > 0 || filter !== undefined;

async function inCatalogue(
  { consul }: Finder,
  { service, filter, tags = [], meta = new Map<string, string>() }: Wanted,
  options: RetryOptions,
): Promise<readonly string[]> {
  const read = () => consul.catalogueNodes({ service, filter }, options);
  const found = await read().catch((error: unknown) => {
    if (filter === undefined || !isRunlockError(error, 'config')) throw error;
    throw new RunlockError('usage', `--filter '${visible(filter)}': ${error.message}`, { cause: error });
  });
  if (found.length === 0) await proveRight(consul, service, options);
  return found
    .filter(
      (each) =>
        tags.every((tag) => each.tags.includes(tag)) &&
        [...meta].every(([key, value]) => each.meta[key] === value),
    )
    .map(({ node }) => node);
}

/** Consul leaves out what the token may not read. @throws RunlockError `forbidden` */
async function proveRight(consul: Consul, service: string | undefined, options: RetryOptions): Promise<void> {
  const node = { resource: 'node', name: '', access: 'read' } as const;
  const rights = [
    node,
    ...(service === undefined ? [] : [{ ...node, resource: 'service', name: service } as const]),
  ];
  const answers = await consul.may(rights, options);
  const missing = rights[answers.indexOf(false)];
  if (!missing) return;
  const rule =
    missing.resource === 'node'
      ? 'node_prefix "" { policy = "read" }'
      : `service "${missing.name}" { policy = "read" }`;
  throw consul.denied(rule, 'its catalogue shows this token nothing');
}

async function withRecord(
  { consul, prefix }: Finder,
  group: string,
  options: RetryOptions,
): Promise<readonly string[]> {
  const below = groupKeys(prefix, group).run('');
  const rule = `key_prefix "${prefix}/${group}/" { policy = "read" }`;
  const keys = await consul.keys(below, { ...options, rule });
  // A listing leaves out what may not be read; a read of one key is refused.
  if (keys.length === 0) await consul.get(`${below}.may-read`, { ...options, rule });
  return keys.map((key) => key.slice(below.length)).filter(isName);
}

async function ofJob(
  { consul, prefix }: Finder,
  { ref, states }: FromJob,
  options: RetryOptions,
): Promise<readonly string[]> {
  const view = await viewJob({ consul, prefix, ref }, options);
  if (!view) throw new RunlockError('config', `there is no job ${jobText(ref)}`);
  return view.targets
    .filter(({ state }) => states.length === 0 || states.includes(state))
    .map(({ node }) => node);
}

/** As it is kept in the request. @param digest of the names that were given. */
export function selectionOf(
  { nodes, service, tags = [], meta, filter, group, from }: Wanted,
  digest: string,
): Selection {
  return {
    ...(nodes && { named: { count: nodes.length, digest } }),
    ...(service !== undefined && { service }),
    ...(tags.length > 0 && { tags: [...tags].sort() }),
    ...(meta && meta.size > 0 && { meta: Object.fromEntries(meta) }),
    ...(filter !== undefined && { filter }),
    ...(group !== undefined && { group }),
    ...(from && { job: jobText(from.ref) }),
    ...(from && from.states.length > 0 && { states: [...from.states].sort() }),
  };
}
