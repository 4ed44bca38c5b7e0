/** Key names under `<prefix>/<group>/` (docs/protocol.md, "Keys"). Pure. */
export interface GroupKeys {
  readonly group: string;
  /** The prefix that all groups share, without a trailing slash. */
  readonly root: string;
  /** The prefix of the keys of this group alone, without a trailing slash. */
  readonly base: string;
  /** The Consul rights that a run in this group needs, as rules of an ACL policy. */
  readonly rule: string;
  /** The prefix of all keys of this group and of the groups below it; ends with a slash. */
  readonly prefix: string;
  readonly queuePrefix: string;
  queue(session: string): string;
  node(node: string): string;
  readonly tail: string;
  readonly last: string;
  readonly slotPrefix: string;
  slot(slot: number): string;
  lock(slot: number): string;
  owner(slot: number): string;
  /** The freeze keys that apply to the group: its own first, then its ancestors', the root's last. */
  readonly freezes: readonly string[];
  run(node: string): string;
  /** A run of the node waits for its gate or its conditions, without a slot. */
  outside(node: string): string;
}

/**
 * Of a job, whose runs take a slot there before any other: `prod/web/.jobs/ops/deploy-42`. No other group has a name that
 * begins with a dot, so who lists groups does not find it.
 */
export const isOfJob = (group: string): boolean => group.includes('/.');

/** The keys of `group` (`prod/web`) under `prefix` (`runlock`), both without trailing slashes. */
export function groupKeys(prefix: string, group: string): GroupKeys {
  const base = `${prefix}/${group}`;
  const freezes = freezeKeys(prefix, group);
  return {
    group,
    root: prefix,
    base,
    rule: [
      `key_prefix "${base}/" { policy = "write" }`,
      ...freezes.slice(1).map((key) => `key "${key}" { policy = "write" }`),
    ].join(', '),
    prefix: `${base}/`,
    queuePrefix: `${base}/.queue/`,
    queue: (session) => `${base}/.queue/${session}`,
    node: (node) => `${base}/.node/${node}`,
    tail: `${base}/.tail`,
    last: `${base}/.last`,
    slotPrefix: `${base}/.slot/`,
    slot: (slot) => `${base}/.slot/${slot}/`,
    lock: (slot) => `${base}/.slot/${slot}/lock`,
    owner: (slot) => `${base}/.slot/${slot}/owner`,
    freezes,
    run: (node) => `${base}/.runs/${node}`,
    outside: (node) => `${base}/.outside/${node}`,
  };
}

/** The keys that stop `group` (`''` for the root): its own first, then its ancestors', the root's last. */
export function freezeKeys(prefix: string, group: string): readonly string[] {
  const segments = group === '' ? [] : group.split('/');
  const ancestors = segments.map((_, i) => [prefix, ...segments.slice(0, segments.length - i)].join('/'));
  return [...ancestors, prefix].map((path) => `${path}/.freeze`);
}

/**
 * The key that a node locks while it checks a service's gate and goes out of service. Services that map to the same key
 * share one gate. Consul's health answers ignore case, so `Shop` and `shop` share a key.
 */
export function gateKey(prefix: string, service: string): string {
  return `${prefix}/.gate/${service.toLowerCase().replaceAll(/[^A-Za-z0-9_-]/g, '_')}`;
}

/** The keys that record which runs need a node in maintenance. */
export interface OutKeys {
  /** Ends with a slash. */
  readonly prefix: string;
  readonly rule: string;
  mark(run: string): string;
}

export function outKeys(root: string, node: string): OutKeys {
  const prefix = `${root}/.gate/.out/${node.replaceAll(/[^A-Za-z0-9._-]/g, '_')}/`;
  const rule = `key_prefix "${prefix}" { policy = "write" }`;
  return { prefix, rule, mark: (run) => `${prefix}${run}` };
}

/** What a key below the prefix is; `other`: a key that this version does not know. */
export type KeyKind =
  | { kind: 'ticket'; session: string }
  | { kind: 'node'; node: string }
  | { kind: 'tail' }
  | { kind: 'last' }
  | { kind: 'lock'; slot: number }
  | { kind: 'owner'; slot: number }
  | { kind: 'freeze' }
  | { kind: 'run'; node: string }
  | { kind: 'outside'; node: string }
  | { kind: 'other' };

/** Splits a key below `prefix` into its group (`''` for the root) and its kind; undefined for a key elsewhere. */
export function parseKey(prefix: string, key: string): { group: string; key: KeyKind } | undefined {
  if (!key.startsWith(`${prefix}/`)) return undefined;
  const path = key.slice(prefix.length + 1);
  const dot = /(?:^|\/)\./.exec(path);
  if (!dot) return { group: path, key: { kind: 'other' } };
  const [name = '', ...rest] = path.slice(dot.index).replace(/^\//, '').split('/');
  return { group: path.slice(0, dot.index), key: keyKind(name, rest) };
}

function keyKind(name: string, rest: string[]): KeyKind {
  const [first, second, ...more] = rest;
  // The key of a folder, such as `.queue/`: Consul's web UI creates such keys.
  if (first === '' && second === undefined) return { kind: 'other' };
  if (first === undefined) {
    if (name === '.tail') return { kind: 'tail' };
    if (name === '.last') return { kind: 'last' };
    if (name === '.freeze') return { kind: 'freeze' };
  } else if (second === undefined) {
    if (name === '.queue') return { kind: 'ticket', session: first };
    if (name === '.node') return { kind: 'node', node: first };
    if (name === '.runs') return { kind: 'run', node: first };
    if (name === '.outside') return { kind: 'outside', node: first };
  } else if (name === '.slot' && more.length === 0 && /^(?:0|[1-9]\d{0,8})$/.test(first)) {
    if (second === 'lock') return { kind: 'lock', slot: Number(first) };
    if (second === 'owner') return { kind: 'owner', slot: Number(first) };
  }
  return { kind: 'other' };
}
