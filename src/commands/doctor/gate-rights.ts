/** Checks each further right that runs with a health gate need, without changing anything. */
import type { Consul, Right } from '../../consul/consul.ts';
import { checkAgent, requireAgent } from '../../gate/agent.ts';
import type { Scope } from '../../gate/maintenance.ts';
import { AUTO, anyServiceOf, nodeAndPeers } from '../../gate/read.ts';
import { gateKey, outKeys } from '../../lock/keys.ts';
import { isName } from '../../text/words.ts';
import type { Check } from '../../output/doctor.ts';
import { once, problem } from './contact.ts';
import { tryWrite } from './rights.ts';

/** The gate options of a group's runs. */
export interface DoctorGate {
  /** Names, and `auto`. */
  readonly services: readonly string[];
  /** Undefined: the runs set no maintenance. */
  readonly maintenance?: Scope;
}

export interface GateRights {
  readonly prefix: string;
  readonly gates: readonly DoctorGate[];
  /** The node whose services these are; undefined: unknown. */
  readonly node: string | undefined;
  /** Node name of the configured agent; undefined: unknown. */
  readonly agentNode: string | undefined;
  /** Connects to the node's own agent, if its address was given. */
  readonly connectToAgent: (() => Promise<Consul>) | undefined;
  readonly signal: AbortSignal;
}

/** No checks if no service is named, because such runs need none of these rights. */
export async function tryGateRights(consul: Consul, asked: GateRights): Promise<readonly Check[]> {
  const { prefix, gates, signal } = asked;
  if (gates.length === 0) return [];
  const auto = await findOffered(consul, asked);
  const rights = rightsOf(gates, { node: asked.node, offered: auto.services });
  const out = gates.filter(({ maintenance }) => maintenance !== undefined);
  const keys = [...new Set(namesOf(out, auto.services).map((service) => gateKey(prefix, service)))];
  const marks = out.length === 0 ? [] : [marksOf(asked)];
  const [answers, agent, ...locks] = await Promise.all([
    askFor(consul, rights, signal),
    judgeAgent(asked, out.length > 0),
    ...keys.map((key) => tryWrite(consul, { keys: [key], rule: `key "${key}"` }, signal)),
    ...marks.map((write) => tryWrite(consul, write, signal)),
  ]);
  return [...auto.checks, ...answers, ...agent, ...locks];
}

/** The keys with which the node's runs say that they need it in maintenance. */
function marksOf({ prefix, node }: GateRights): { keys: readonly string[]; rule: string } {
  const keys = outKeys(prefix, node !== undefined && isName(node) ? node : 'NODE');
  return { keys: [keys.mark('any')], rule: `key_prefix "${keys.prefix}"` };
}

interface Offered {
  readonly services: readonly string[];
  readonly checks: readonly Check[];
}

const takesAll = ({ maintenance }: DoctorGate) => maintenance === 'node';

/** The services that `auto` means now, and those that go into maintenance with the whole node. */
async function findOffered(consul: Consul, { gates, node, agentNode, signal }: GateRights): Promise<Offered> {
  if (!gates.some((gate) => gate.services.includes(AUTO) || takesAll(gate)))
    return { services: [], checks: [] };
  const whole = gates.some(takesAll);
  const head = whole ? '--maintenance node' : 'auto';
  if (node === undefined) {
    const found = `${head}: the agent's node name is unknown, so its services are too`;
    return { services: [], checks: [{ check: 'rights', level: 'note', found, fix: TELL_NODE }] };
  }
  try {
    const limits = once(signal);
    const [offered, [all]] = await Promise.all([
      node === agentNode ? consul.agentServices(limits) : consul.nodeServices(node, limits),
      consul.may([anyServiceOf(node)], limits),
    ]);
    const services = [...new Set((offered ?? []).map(({ service }) => service))].sort();
    const known = offered !== undefined;
    return { services, checks: [judgeOffered(node, services, { known, all, whole, head })] };
  } catch (error) {
    return { services: [], checks: [problem('rights', error)] };
  }
}

const TELL_NODE = 'give the name with --node, and run doctor again';
const ALL_SERVICES = 'service_prefix "" { policy = "read" }';

interface Seeing {
  readonly known: boolean;
  readonly all: boolean | undefined;
  readonly whole: boolean;
  readonly head: string;
}

/** Consul silently omits services that the token may not read, so runs would not wait for the gates of these. */
function judgeOffered(node: string, services: readonly string[], seeing: Seeing): Check {
  const { known, all, whole, head } = seeing;
  const check = 'rights';
  if (!known) {
    const found = `${head}: no node ${node} in Consul's catalogue`;
    const fix = `correct --node, or add to the token's policy: node "${node}" { policy = "read" }`;
    return { check, level: 'problem', found, fix };
  }
  const fix = `add to the token's policy: ${ALL_SERVICES}`;
  if ((services.length === 0 || whole) && all === false)
    return { check, level: 'problem', found: `${head}: this token can't see the services of ${node}`, fix };
  const found = `${head}: services of ${node}: ${services.join(', ') || 'none'}`;
  if (all !== false) return { check, level: 'ok', found };
  return { check, level: 'note', found: `${found} (this token may not see all)`, fix: `to see all, ${fix}` };
}

const namesOf = (gates: readonly DoctorGate[], offered: readonly string[]) =>
  [
    ...new Set(
      gates.flatMap((gate) => [
        ...gate.services.flatMap((one) => (one === AUTO ? offered : [one])),
        ...(takesAll(gate) ? offered : []),
      ]),
    ),
  ].sort();

/** A rule, and the rights that show whether the token has it; none: the name to ask for is unknown. */
interface Wanted {
  readonly rule: string;
  readonly access: Right['access'];
  readonly rights: readonly Right[];
}

/** Each rule once; write access includes read access. */
function rightsOf(
  gates: readonly DoctorGate[],
  { node, offered }: { node: string | undefined; offered: readonly string[] },
): readonly Wanted[] {
  const services = namesOf(gates, offered);
  const changed = namesOf(
    gates.filter(({ maintenance }) => maintenance === 'service'),
    offered,
  );
  // Any node name will do: the rule is for all of them.
  const nodes: Wanted = { rule: 'node_prefix ""', access: 'read', rights: nodeAndPeers(node ?? 'any') };
  const takesNode = gates.some(takesAll);
  return [
    ...services.map((name) => wanted('service', name, changed.includes(name) ? 'write' : 'read')),
    ...(services.length === 0 ? [] : [nodes]),
    ...(takesNode ? [wanted('node', node, 'write')] : []),
  ];
}

const wanted = (resource: Right['resource'], name: string | undefined, access: Right['access']): Wanted => ({
  rule: `${resource} "${name ?? 'NODE'}"`,
  access,
  rights: name === undefined ? [] : [{ resource, name, access }],
});

/** Asks Consul whether it would allow the rights, because trying maintenance would change it. */
async function askFor(
  consul: Consul,
  all: readonly Wanted[],
  signal: AbortSignal,
): Promise<readonly Check[]> {
  if (all.length === 0) return [];
  try {
    const answers = [
      ...(await consul.may(
        all.flatMap(({ rights }) => rights),
        once(signal),
      )),
    ];
    return all.map((each) => judge(each, answers.splice(0, each.rights.length)));
  } catch (error) {
    return [problem('rights', error)];
  }
}

function judge({ rule, access, rights }: Wanted, answers: readonly (boolean | undefined)[]): Check {
  const check = 'rights';
  const fix = `add to the token's policy: ${rule} { policy = "${access}" }`;
  if (answers.includes(false)) return { check, level: 'problem', found: `${rule}: ${access} denied`, fix };
  if (rights.length > 0 && !answers.includes(undefined))
    return { check, level: 'ok', found: `${rule}: ${access}` };
  const why =
    rights.length > 0 ? 'Consul does not report the rights of tokens' : "the agent's node name is unknown";
  const found = `${rule}: ${access} is needed but was not checked: ${why}`;
  return { check, level: 'note', found, fix: `if runs are denied access, ${fix}` };
}

/** Maintenance is set at the node's own agent, so check that the given agent is that one. */
async function judgeAgent(
  { node, agentNode, connectToAgent, signal }: GateRights,
  changes: boolean,
): Promise<readonly Check[]> {
  if (node === undefined) return [];
  try {
    if (!connectToAgent) {
      if (changes && agentNode !== undefined) requireAgent(node, agentNode);
      return [];
    }
    const agent = await connectToAgent();
    try {
      await checkAgent(agent, node, signal);
      return [{ check: 'rights', level: 'ok', found: `agent "${node}": read, at ${agent.address}` }];
    } finally {
      agent.close();
    }
  } catch (error) {
    return [problem('rights', error)];
  }
}
