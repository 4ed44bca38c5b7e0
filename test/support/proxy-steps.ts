// The requests that a test wants to break: each step of the protocol is known by what it writes.
import type { Action, Match } from './proxy.ts';

/** A transaction with this verb on a key whose name contains `key`. */
export const writes =
  (verb: string, key: string): Match =>
  ({ path, body }) =>
    path.startsWith('/v1/txn') &&
    (JSON.parse(body) as { KV: { Verb: string; Key: string } }[]).some(
      ({ KV }) => KV.Verb === verb && KV.Key.includes(key),
    );

const asksFor =
  (start: string): Match =>
  ({ path }) =>
    path.startsWith(start);

const wantsBack = writes('check-index', '/owner');

const isMaintenance = (path: string, on: boolean) =>
  /^\/v1\/agent\/(?:service\/)?maintenance/.test(path) && path.includes(`enable=${on}`);

export const STEPS = {
  'session create': asksFor('/v1/session/create'),
  'session info': asksFor('/v1/session/info'),
  'session destroy': asksFor('/v1/session/destroy'),
  renew: asksFor('/v1/session/renew'),
  enqueue: writes('set', '/.tail'),
  /** `grant` and `takeOver`. */
  grant: writes('set', '/.last'),
  /** `comeBack` and `takeBack`: they take a lock by the claim that is there. */
  'come back': (request) => writes('lock', '/.node/')(request) && wantsBack(request),
  /** `claimAgain`: it takes a lock where there is no claim, outside the queue. */
  'claim again': (request) =>
    writes('lock', '/.node/')(request) && writes('check-not-exists', '/owner')(request),
  release: writes('set', '/.runs/'),
  /** The last transaction before the command, of a run with `--during`. */
  start: (request) => writes('set', '/.state/')(request) && !writes('set', '/.runs/')(request),
  /** The look that tells whose turn it is; `enqueue` reads the same, and is none. */
  look: (request) => writes('get-tree', '/.last')(request) && !writes('set', '/.tail')(request),
  'gate lock': writes('lock', '/.gate/'),
  /** The lock of the gate is still held: before the node goes out of service, and when the catalogue shows it. */
  'gate proof': writes('check-session', '/.gate/'),
  'maintenance on': ({ method, path }) => method === 'PUT' && isMaintenance(path, true),
  'maintenance off': ({ method, path }) => method === 'PUT' && isMaintenance(path, false),
  /** What is in maintenance at the agent. */
  'agent checks': asksFor('/v1/agent/checks'),
  /** A read that waits for a change. */
  watch: ({ path }) => path.startsWith('/v1/kv/') && path.includes('index='),
} as const satisfies Record<string, Match>;

/** Every way to lose a request or its answer; each name can be a node's. */
export const LOSSES: Readonly<Record<string, Action>> = {
  'drop-before': 'drop-before',
  'drop-after': 'drop-after',
  late: 'late',
  cut: 'cut',
  hang: 'hang',
};

/** The same, and the ways to be slow or to say no. */
export const FAULTS: Readonly<Record<string, Action>> = {
  ...LOSSES,
  slow: { delayMs: 300 },
  overloaded: { status: 429, body: 'slow down' },
  leaderless: { status: 500, body: 'No cluster leader' },
};
