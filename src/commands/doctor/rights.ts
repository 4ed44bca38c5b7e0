/** Tries each right that a run in the group needs, without changing anything. */
import { randomUUID } from 'node:crypto';
import type { Consul, Operation, SessionInfo, Whereabouts } from '../../consul/consul.ts';
import { isRunlockError, reasonOf } from '../../errors.ts';
import { isName } from '../../text/words.ts';
import type { GroupKeys } from '../../lock/keys.ts';
import type { Check } from '../../output/doctor.ts';
import { formatAge } from '../../text/age.ts';
import { TIMEOUT_MS, once, problem } from './contact.ts';

export interface Token {
  readonly check: Check;
  /** Whether Consul accepts the token at all. */
  readonly known: boolean;
}

/** What Consul reports about the token itself, which needs no rights. */
export async function tryToken(
  consul: Consul,
  { tokenFrom }: Whereabouts,
  { now, signal }: { now: number; signal: AbortSignal },
): Promise<Token> {
  try {
    const { body } = await consul.inspect('/acl/token/self', once(signal));
    return { check: judgeToken(body, { from: tokenFrom ?? 'nowhere', now }), known: true };
  } catch (error) {
    return judgeNoToken(error, tokenFrom);
  }
}

function judgeNoToken(error: unknown, tokenFrom: string | undefined): Token {
  if (/ACL support disabled/i.test(reasonOf(error))) {
    const found = "Consul's ACLs are off: everyone who can reach Consul has all rights";
    return { check: { check: 'token', level: 'ok', found }, known: true };
  }
  if (!isRunlockError(error, 'forbidden')) return { check: problem('token', error), known: true };
  if (tokenFrom === undefined) {
    const fix = 'if rights are missing below, set CONSUL_HTTP_TOKEN_FILE to a file with a token';
    return {
      check: { check: 'token', level: 'note', found: 'none: using the rights of the anonymous token', fix },
      known: true,
    };
  }
  return {
    check: { ...problem('token', error), fix: `put a valid token into ${tokenFrom}` },
    known: false,
  };
}

const SOON_MS = 7 * 86_400_000;

/** Pure. Shows only the token's accessor id, which is not secret. */
export function judgeToken(body: unknown, { from, now }: { from: string; now: number }): Check {
  const { AccessorID: id, ExpirationTime: ends } = (body ?? {}) as Record<string, unknown>;
  const found = `from ${from}${typeof id === 'string' ? `, accessor ${id}` : ''}`;
  const leftMs = typeof ends === 'string' ? Date.parse(ends) - now : NaN;
  if (Number.isNaN(leftMs)) return { check: 'token', level: 'ok', found };
  const expires = `${found}, expires in ${formatAge(leftMs)}`;
  if (leftMs > SOON_MS) return { check: 'token', level: 'ok', found: expires };
  return { check: 'token', level: 'warning', found: expires, fix: 'replace it in time' };
}

/** Like a run's session. If destroying it fails, it expires. */
const SESSION = { name: 'runlock doctor', ttl: '30s' };

export interface SessionTried {
  readonly checks: readonly Check[];
  /** The agent's node; undefined: unknown. */
  readonly node?: string;
}

/** Creates a session, reads it back and destroys it. @param agentNode the agent's name, if already known. */
export async function trySession(
  consul: Consul,
  { agentNode, signal }: { agentNode: string | undefined; signal: AbortSignal },
): Promise<SessionTried> {
  let id: string;
  try {
    id = await consul.createSession(SESSION, once(signal));
  } catch (error) {
    if (!isRunlockError(error, 'forbidden')) return { checks: [problem('rights', error)] };
    const rule = `session "${agentNode ?? 'NODE'}" { policy = "write" }`;
    const who = agentNode === undefined ? ", where NODE is the name of the local agent's node" : '';
    const fix = `add to the token's policy: ${rule}${who}`;
    return { checks: [{ check: 'rights', level: 'problem', found: 'sessions: denied', fix }] };
  }
  const checks: Check[] = [];
  let node: string | undefined;
  try {
    const made = await consul.readSession(id, once(signal));
    node = made?.node;
    checks.push(judgeSession(made));
  } catch (error) {
    checks.push(problem('rights', error));
  }
  const left = await destroy(consul, id);
  return { checks: [...checks, ...left], ...(node !== undefined && { node }) };
}

/** Pure. `made` undefined: the new session could not be read. */
export function judgeSession(made: SessionInfo | undefined): Check {
  if (!made) {
    const found = 'sessions: created, but reading back is denied';
    const fix = 'add to the token\'s policy: session "NODE" { policy = "write" }, with the agent\'s own name';
    return { check: 'rights', level: 'problem', found, fix };
  }
  const { node, ttl, behavior, lockDelayMs, checks } = made;
  if (ttl === SESSION.ttl && behavior === 'delete' && lockDelayMs === 0 && checks.length === 0)
    return { check: 'rights', level: 'ok', found: `sessions of ${node}: create, read, destroy` };
  const found = `sessions: Consul created a different session than requested (TTL '${ttl}', behaviour '${behavior}')`;
  const fix = 'does a proxy drop request bodies? Set CONSUL_HTTP_ADDR to the agent itself';
  return { check: 'rights', level: 'problem', found, fix };
}

/** Has its own deadline, so that no session is left even if the check was aborted. */
async function destroy(consul: Consul, id: string): Promise<readonly Check[]> {
  try {
    await consul.destroySession(id, { signal: AbortSignal.timeout(TIMEOUT_MS), retryForMs: TIMEOUT_MS });
    return [];
  } catch (error) {
    const found = `could not destroy session ${id} (${reasonOf(error)})`;
    return [
      {
        check: 'rights',
        level: 'warning',
        found,
        fix: 'no action needed: the session expires within a minute',
      },
    ];
  }
}

/** Judges the name under which this node's runs claim slots. */
export function judgeNode(
  chosen: string | undefined,
  agentNode: string | undefined,
  here: { readonly host: string; readonly isRemote: boolean },
): Check[] {
  const node = chosen ?? agentNode;
  if (node === undefined) return [];
  const other = chosen === undefined && isName(node) ? judgeShared(node, here) : undefined;
  if (other) return [other];
  if (isName(node)) {
    const from =
      chosen === undefined ? "the agent's node" : `--node; the agent's is ${agentNode ?? 'unknown'}`;
    return [{ check: 'node', level: 'ok', found: `${node} (${from})` }];
  }
  const found = `the agent's node name '${node}' can't be part of a key`;
  return [{ check: 'node', level: 'problem', found, fix: 'give every command another name with --node' }];
}

/**
 * An agent on this host may have another name than the host. An agent on another host has that host's name, and every
 * node that uses it would get the same name.
 */
function judgeShared(
  node: string,
  { host, isRemote }: { host: string; isRemote: boolean },
): Check | undefined {
  const label = (name: string) => name.toLowerCase().split('.')[0];
  if (!isRemote || label(node) === label(host)) return undefined;
  const found = `${node} (the agent's node), but this host is ${host}: all hosts that use this agent without --node share this name, so only one of them can run at a time`;
  return {
    check: 'node',
    level: 'warning',
    found,
    fix: `give each host its own name with --node (RUNLOCK_NODE), such as --node ${host}`,
  };
}

/** Tries write access below each group's prefix and to each freeze key above it, with `check-not-exists`, which needs it. */
export async function tryKeys(
  consul: Consul,
  { groups, node, signal }: { groups: readonly GroupKeys[]; node: string | undefined; signal: AbortSignal },
): Promise<Check[]> {
  const tried = groups.map((keys) => writesIn(keys, node));
  const above = new Map(tried.flatMap((each) => each.above.map((write) => [write.rule, write])));
  const all = [...tried.map(({ below }) => below), ...above.values()];
  return Promise.all(all.map((each) => tryWrite(consul, each, signal)));
}

/** Keys that are tried together, and the rule that they need, without its access level. */
export interface Tried {
  readonly keys: readonly string[];
  readonly rule: string;
}

/** Returns freeze keys separately, because groups share them: at least the root's. */
function writesIn(keys: GroupKeys, node: string | undefined): { below: Tried; above: Tried[] } {
  const any = randomUUID();
  const name = node !== undefined && isName(node) ? node : any;
  const below = [
    ...[keys.queue(any), keys.node(name), keys.tail, keys.last, keys.run(name)],
    ...[keys.lock(0), keys.owner(0), ...keys.freezes.slice(0, 1)],
  ];
  return {
    below: { keys: below, rule: `key_prefix "${keys.prefix}"` },
    above: keys.freezes.slice(1).map((key) => ({ keys: [key], rule: `key "${key}"` })),
  };
}

export async function tryWrite(consul: Consul, { keys, rule }: Tried, signal: AbortSignal): Promise<Check> {
  const operations = keys.map((key): Operation => ({ verb: 'check-not-exists', key }));
  try {
    // An existing key fails the check too, but only after Consul has allowed the access.
    await consul.transact(operations, once(signal));
    return { check: 'rights', level: 'ok', found: `${rule}: write` };
  } catch (error) {
    if (!isRunlockError(error, 'forbidden')) return problem('rights', error);
    const fix = `add to the token's policy: ${rule} { policy = "write" }`;
    return { check: 'rights', level: 'problem', found: `${rule}: write denied`, fix };
  }
}
