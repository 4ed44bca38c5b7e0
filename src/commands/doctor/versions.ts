/** Checks the versions of Consul's agent and servers. */
import type { Consul } from '../../consul/consul.ts';
import { isRunlockError } from '../../errors.ts';
import type { Check } from '../../output/doctor.ts';
import { once, problem } from './contact.ts';

/** The version that runlock is tested with. Newer versions are only simulated (CONTRIBUTING.md). */
const TESTED = '1.8.7';

export interface Versions {
  readonly check: Check;
  /** The agent's node name, if the token may read it. */
  readonly node?: string;
}

export async function readVersions(consul: Consul, signal: AbortSignal): Promise<Versions> {
  try {
    const [self, members] = await Promise.all([
      consul.inspect('/agent/self', once(signal)),
      consul.inspect('/agent/members', once(signal)),
    ]);
    const { Version: agent, NodeName: node } = field(self.body, 'Config');
    const check = judgeVersions(String(agent), serverVersions(members.body));
    return { check, ...(typeof node === 'string' && { node }) };
  } catch (error) {
    if (!isRunlockError(error, 'forbidden')) return { check: problem('versions', error) };
    const found = "this token can't read the agent's version (runs do not need it)";
    const fix = 'to check it, add to the token\'s policy: agent_prefix "" { policy = "read" }';
    return { check: { check: 'versions', level: 'note', found, fix } };
  }
}

/** A server's member entry shows its build: `1.8.7:0e046bbb`. */
function serverVersions(members: unknown): string[] {
  const tags = Array.isArray(members) ? members.map((member: unknown) => field(member, 'Tags')) : [];
  const servers = tags.filter(({ role }) => role === 'consul');
  return [...new Set(servers.map(({ build }) => String(build).split(':')[0] ?? ''))].sort();
}

function field(value: unknown, name: string): Record<string, unknown> {
  const object = typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : {};
  const inner = object[name];
  return typeof inner === 'object' && inner !== null ? (inner as Record<string, unknown>) : {};
}

/** Pure. */
export function judgeVersions(agent: string, servers: readonly string[]): Check {
  const theirs = servers.length === 0 ? "servers' versions unknown" : `servers ${servers.join(', ')}`;
  const found = `agent ${agent}, ${theirs}`;
  const all = [agent, ...servers];
  if (all.some((version) => isOlder(version, TESTED))) {
    const fix = `upgrade Consul: runlock is tested with ${TESTED}`;
    return { check: 'versions', level: 'note', found, fix };
  }
  if (!all.some((version) => isOlder(TESTED, version))) return { check: 'versions', level: 'ok', found };
  const fix = `no action needed: runlock is tested with ${TESTED}, and with a simulation of newer versions`;
  return { check: 'versions', level: 'note', found, fix };
}

function isOlder(version: string, than: string): boolean {
  const [a, b] = [version, than].map((text) => (text.match(/\d+/g) ?? []).slice(0, 3).map(Number));
  for (let i = 0; i < 3; i++) {
    const [left, right] = [a?.[i], b?.[i]];
    if (left === undefined || right === undefined) return false;
    if (left !== right) return left < right;
  }
  return false;
}
