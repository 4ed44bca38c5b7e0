/** Finds keys of the group that no run will ever delete. */
import type { Consul, Entry } from '../../consul/consul.ts';
import { isRunlockError } from '../../errors.ts';
import { hint } from '../../text/suggested-command.ts';
import { parseKey } from '../../lock/keys.ts';
import type { GroupKeys, KeyKind } from '../../lock/keys.ts';
import {
  decodeClaim,
  decodeFreeze,
  decodeLockMark,
  decodeNodeMark,
  decodeQueueMark,
  decodeRun,
  decodeTicket,
} from '../../lock/records.ts';
import { decodeOutside } from '../../lock/outside.ts';
import { mayStillRun } from '../../lock/decide.ts';
import type { Check } from '../../output/doctor.ts';
import { formatAge } from '../../text/age.ts';
import { once, problem } from './contact.ts';

/** @param node the agent's own, if known: if it is missing in the catalogue, the token may not read the catalogue. */
export async function findLeftovers(
  consul: Consul,
  options: { keys: GroupKeys; node: string | undefined; now: number; signal: AbortSignal },
): Promise<Check[]> {
  const { keys, signal } = options;
  try {
    // A listing hides keys that the token may not read, but reading a single key is refused.
    await consul.get(keys.owner(0), once(signal));
    const { entries } = await consul.list(keys.prefix, once(signal));
    const own = entries.filter(({ key }) => parseKey(keys.root, key)?.group === keys.group);
    const judged = judgeEntries(own, options);
    const claims = unlockedClaims(own, keys);
    const nodes = claims.length === 0 ? [] : await readCatalogue(consul, options);
    const checks = [...judged, ...judgeClaims(claims, { keys, nodes })];
    if (checks.length > 0) return checks;
    return [{ check: 'leftovers', level: 'ok', found: `none in ${own.length} keys below ${keys.prefix}` }];
  } catch (error) {
    if (!isRunlockError(error, 'forbidden')) return [problem('leftovers', error)];
    const found = `not checked: this token can't read ${keys.prefix}`;
    return [{ check: 'leftovers', level: 'note', found }];
  }
}

/** Names of all nodes that Consul knows; undefined: the token can't read them. */
async function readCatalogue(
  consul: Consul,
  { node, signal }: { node: string | undefined; signal: AbortSignal },
): Promise<readonly string[] | undefined> {
  const { body } = await consul.inspect('/catalog/nodes', once(signal));
  const nodes = Array.isArray(body) ? body.map((each: { Node?: unknown }) => String(each.Node)) : [];
  return node === undefined || nodes.includes(node) ? nodes : undefined;
}

/** A record further in the future than this shows that a clock is wrong. */
const DIFFERENCE_MS = 5_000;

/** Judges everything except claims without a lock (see `judgeClaims`). Pure. */
export function judgeEntries(
  entries: readonly Entry[],
  { keys, now }: { keys: GroupKeys; now: number },
): Check[] {
  return entries.flatMap((entry): Check[] => {
    const kind = parseKey(keys.root, entry.key)?.key ?? { kind: 'other' as const };
    try {
      return [...judgeAhead(entry, writtenAt(kind, entry), now), ...judgeOrphan(kind, entry)];
    } catch (error) {
      if (!isRunlockError(error, 'incompatible')) throw error;
      // Only people read these two.
      const level = kind.kind === 'run' || kind.kind === 'outside' ? 'warning' : 'problem';
      return [{ ...problem('leftovers', error), level }];
    }
  });
}

/** When the record was written, by its own account. @throws RunlockError `incompatible`: the record can't be read. */
function writtenAt(kind: KeyKind, entry: Entry): string | undefined {
  switch (kind.kind) {
    case 'ticket':
      return decodeTicket(entry).since;
    case 'node':
      return decodeNodeMark(entry).since;
    case 'owner':
      return decodeClaim(entry).since;
    case 'freeze':
      return decodeFreeze(entry).since;
    case 'run':
      return decodeRun(entry).endedAt;
    case 'outside':
      return decodeOutside(entry).since;
    case 'lock':
      decodeLockMark(entry);
      return undefined;
    case 'tail':
    case 'last':
      decodeQueueMark(entry);
      return undefined;
    case 'other':
      return undefined;
  }
}

function judgeAhead({ key }: Entry, at: string | undefined, now: number): Check[] {
  const aheadMs = at === undefined ? 0 : Date.parse(at) - now;
  if (aheadMs <= DIFFERENCE_MS) return [];
  const found = `${key} was written ${formatAge(aheadMs)} in the future, by this host's clock`;
  return [{ check: 'clock', level: 'warning', found, fix: "compare that node's clock with this host's" }];
}

function judgeOrphan({ kind }: KeyKind, { key, session }: Entry): Check[] {
  if (session !== undefined || (kind !== 'ticket' && kind !== 'lock')) return [];
  const found =
    kind === 'ticket'
      ? `${key}: a ticket without a session, which never leaves the queue`
      : `${key}: a lock without a session, created by hand or by a restored backup`;
  return [{ check: 'leftovers', level: 'warning', found, fix: `consul kv delete ${key}` }];
}

interface UnlockedClaim {
  readonly slot: number;
  readonly node: string;
  /** The claim still says `running`: no run has recorded that this one is gone. */
  readonly vanished: boolean;
}

/** Claims without a living session behind them. */
function unlockedClaims(entries: readonly Entry[], keys: GroupKeys): UnlockedClaim[] {
  const locked = new Set(entries.filter(({ session }) => session !== undefined).map(({ key }) => key));
  return entries.flatMap((entry) => {
    const key = parseKey(keys.root, entry.key)?.key;
    if (key?.kind !== 'owner' || locked.has(keys.lock(key.slot))) return [];
    try {
      const { node, state } = decodeClaim(entry);
      return [{ slot: key.slot, node, vanished: mayStillRun(state) }];
    } catch {
      // `judgeEntries` reports unreadable records.
      return [];
    }
  });
}

/** Pure. `nodes` undefined: the catalogue can't be read. */
export function judgeClaims(
  claims: readonly UnlockedClaim[],
  { keys, nodes }: { keys: GroupKeys; nodes: readonly string[] | undefined },
): Check[] {
  const checks = claims.flatMap(({ slot, node, vanished }): Check[] => {
    const gone = nodes !== undefined && !nodes.includes(node);
    if (!gone && !vanished) return [];
    const what = vanished
      ? `slot ${slot}: the run of ${node} has vanished${gone ? `, and ${node} is not in Consul's catalogue` : ''}`
      : `slot ${slot} is held by ${node}, which is not in Consul's catalogue`;
    const release = hint(keys.root, 'release', keys.group, '--owner', node);
    const look = `check ${node} first: its command may still be running there; once it has ended, run ${node} again, or clear its claim with 'runlock release' (asks for confirmation)`;
    const fix = gone ? `if that node is gone for good: ${release}` : look;
    return [{ check: 'leftovers', level: 'warning', found: what, fix }];
  });
  if (nodes !== undefined || claims.length === 0) return checks;
  const found = "can't tell whether the claims' nodes still exist: this token can't read the catalogue";
  const fix = 'to check this, add to the token\'s policy: node_prefix "" { policy = "read" }';
  return [...checks, { check: 'leftovers', level: 'note', found, fix }];
}
