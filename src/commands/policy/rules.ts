/** The rules of Consul's ACL that a role needs, and no others. Pure. */
import type { Condition } from '../../conditions/parse.ts';
import { sourcesOf } from '../../conditions/sources.ts';
import type { Scope } from '../../gate/maintenance.ts';
import { AUTO } from '../../gate/read.ts';
import { agentKey, requestKeys } from '../../jobs/keys.ts';
import { requestRule } from '../../jobs/read.ts';
import { freezeKeys, gateKey, groupKeys, outKeys } from '../../lock/keys.ts';
import { belowRule, stateRule, statesBelow } from '../../state/path.ts';

export type Role = 'node' | 'agent' | 'operator' | 'viewer';

/** A rule as Consul's policies have it. */
export interface Rule {
  /** `key_prefix`, `session`, … */
  readonly resource: string;
  /** What it is for: a name, or how names begin. */
  readonly name: string;
  readonly access: Access;
}

type Access = 'read' | 'write';

export interface PolicyGate {
  /** Names, and `auto`. */
  readonly services: readonly string[];
  /** Undefined: the runs set no maintenance. */
  readonly maintenance?: Scope;
}

/** What runs of a group do besides taking its lock. */
export interface PolicyGroup {
  /** '' is the root: all groups. */
  readonly group: string;
  readonly gate?: PolicyGate;
  readonly when: readonly Condition[];
  /** Paths of the states that they publish. */
  readonly published: readonly string[];
}

export interface PolicyRequest {
  readonly prefix: string;
  readonly role: Role;
  readonly groups: readonly PolicyGroup[];
  /** Undefined: any node. */
  readonly node?: string;
  /** Paths of states that are set. */
  readonly states: readonly string[];
  /** With `agent`: who may ask for its tasks. With the others: as whom they ask. */
  readonly principals: readonly string[];
  /** With `agent`: what starts its tasks; undefined: nothing does. */
  readonly on?: readonly Condition[];
}

/** In the order in which people read them: what comes first is needed most. */
export function rulesOf(request: PolicyRequest): readonly Rule[] {
  const { prefix, groups, states, principals, on = [] } = request;
  const own: Record<Role, () => readonly Rule[]> = {
    node: () => groups.flatMap((group) => ofNode(request, group)),
    agent: () => [...groups.flatMap((group) => ofNode(request, group)), ...ofAgent(request)],
    operator: () => groups.flatMap(({ group }) => ofPerson(prefix, group, 'write')),
    viewer: () => groups.flatMap(({ group }) => ofPerson(prefix, group, 'read')),
  };
  const isRun = request.role === 'node' || request.role === 'agent';
  const session = isRun ? [ruleFor('session', request.node, 'write')] : [];
  return leastOf([
    ...session,
    ...own[request.role](),
    ...[...groups.flatMap(({ published }) => published), ...states].map((path) =>
      parseRule(stateRule(prefix, path, 'write')),
    ),
    ...groups.flatMap(({ group, when }) => ofConditions(prefix, group, when)),
    ...ofConditions(prefix, '', on),
    ...(isRun ? [] : principals.flatMap((name) => asPrincipal(request, name))),
    ...(isRun ? [] : groups.flatMap(({ gate }) => (gate ? seen(gate) : []))),
  ]);
}

function ofNode({ prefix, node }: PolicyRequest, { group, gate }: PolicyGroup): readonly Rule[] {
  const [, ...above] = freezeKeys(prefix, group);
  return [
    {
      resource: 'key_prefix',
      name: group === '' ? `${prefix}/` : groupKeys(prefix, group).prefix,
      access: 'write',
    },
    // A grant checks them in the transaction that changes the slot, for which Consul asks the right to write (ADR 7).
    ...above.map((name): Rule => ({ resource: 'key', name, access: 'write' })),
    ...(gate ? ofGate(prefix, node, gate) : []),
  ];
}

/** What an agent has besides what the runs of its tasks need. */
function ofAgent({ prefix, node, principals, on }: PolicyRequest): readonly Rule[] {
  const below = (name: string) => ({ resource: 'key_prefix', name });
  const own = (folder: string) => below(node === undefined ? folder : `${folder}${node}/`);
  return [
    node === undefined
      ? { ...below(agentKey(prefix, '')), access: 'write' }
      : { resource: 'key', name: agentKey(prefix, node), access: 'write' },
    ...(principals.length === 0 ? [] : [parseRule(requestRule(prefix))]),
    ...principals.map((name): Rule => ({
      ...own(requestKeys(prefix, name).prefix + INBOX),
      access: 'write',
    })),
    ...(on === undefined ? [] : [{ ...own(triggersBelow(prefix)), access: 'write' } as const]),
  ];
}

const INBOX = 'inbox/';
const triggersBelow = (prefix: string) => `${prefix}/.triggers/`;

/** Who asks for jobs needs to write what is asked, and where the jobs of the groups are. */
const asPrincipal = ({ prefix, groups }: PolicyRequest, principal: string): readonly Rule[] => [
  parseRule(requestKeys(prefix, principal).rule),
  ...groups.map(({ group }): Rule => ({
    resource: 'key_prefix',
    name: `${prefix}/${group}/.jobs/${principal}/`,
    access: 'write',
  })),
];

/** Whoever looks at a group has to see whether a freeze above it is in effect. */
function ofPerson(prefix: string, group: string, access: Access): readonly Rule[] {
  const [, ...above] = freezeKeys(prefix, group);
  return [
    { resource: 'key_prefix', name: group === '' ? `${prefix}/` : groupKeys(prefix, group).prefix, access },
    ...above.map((name): Rule => ({ resource: 'key', name, access: 'read' })),
    // Runs may wait for any state, and what they wait for is judged by whoever looks.
    parseRule(belowRule(statesBelow(prefix), 'read')),
    // What is asked of nodes, by whom, and what starts by itself.
    ...[agentKey(prefix, ''), `${prefix}/.requests/`, triggersBelow(prefix)].map((name): Rule => ({
      resource: 'key_prefix',
      name,
      access: 'read',
    })),
  ];
}

function ofGate(prefix: string, node: string | undefined, gate: PolicyGate): readonly Rule[] {
  const { services, maintenance } = gate;
  if (maintenance === undefined) return seen(gate);
  const marks = outKeys(prefix, node ?? '').prefix;
  const whole = maintenance === 'node';
  return [
    ...(whole ? [ruleFor('node', node, 'write')] : []),
    // The node as a whole takes out everything that it offers, so each service's gate is asked.
    ...(whole ? [anyOf('service', 'read')] : []),
    ...seen(gate).map((rule): Rule =>
      rule.resource.startsWith('service') && !whole ? { ...rule, access: 'write' } : rule,
    ),
    ...(whole || services.includes(AUTO)
      ? [{ resource: 'key_prefix', name: `${prefix}/.gate/`, access: 'write' } as const]
      : services.map((service): Rule => ({
          resource: 'key',
          name: gateKey(prefix, service),
          access: 'write',
        }))),
    { resource: 'key_prefix', name: node === undefined ? marks.replace(/\/$/, '') : marks, access: 'write' },
  ];
}

/** To see how healthy services are, and on which nodes. */
const seen = ({ services }: PolicyGate): readonly Rule[] => [
  anyOf('node', 'read'),
  ...services.map((service) =>
    service === AUTO ? anyOf('service', 'read') : ruleFor('service', service, 'read'),
  ),
];

function ofConditions(prefix: string, group: string, when: readonly Condition[]): readonly Rule[] {
  return when.flatMap((condition) =>
    sourcesOf([condition], { prefix, groups: [group] }).flatMap((source) =>
      source.kind === 'service' ? seen({ services: [source.service] }) : [parseRule(source.rule)],
    ),
  );
}

const anyOf = (resource: string, access: Access): Rule => ({
  resource: `${resource}_prefix`,
  name: '',
  access,
});

const ruleFor = (resource: string, name: string | undefined, access: Access): Rule =>
  name === undefined ? anyOf(resource, access) : { resource, name, access };

/** @param rule as messages name it: `key_prefix "runlock/" { policy = "write" }`. */
function parseRule(rule: string): Rule {
  const [, resource = '', name = '', access = ''] =
    /^(\w+) "([^"]*)" \{ policy = "(\w+)" \}$/.exec(rule) ?? [];
  return { resource, name, access: access === 'write' ? 'write' : 'read' };
}

/**
 * Without those that another one includes. Consul goes by the rule that fits a name best, so a narrower one with less
 * access would take away what a wider one gives.
 */
function leastOf(rules: readonly Rule[]): readonly Rule[] {
  const isMore = (a: Access, b: Access) => a === 'write' || a === b;
  return rules.filter((rule, at) =>
    rules.every((other, index) => {
      if (index === at || !covers(other, rule) || !isMore(other.access, rule.access)) return true;
      // Of two that are the same, the first one stays.
      return covers(rule, other) && isMore(rule.access, other.access) && at < index;
    }),
  );
}

/** Whether `wide` is for every name that `narrow` is for. */
function covers(wide: Rule, narrow: Rule): boolean {
  const [kind, wideIsPrefix] = kindOf(wide);
  const [other, narrowIsPrefix] = kindOf(narrow);
  if (kind !== other) return false;
  if (wideIsPrefix) return narrow.name.startsWith(wide.name);
  return !narrowIsPrefix && narrow.name === wide.name;
}

const kindOf = ({ resource }: Rule): [string, boolean] => [
  resource.replace(/_prefix$/, ''),
  resource.endsWith('_prefix'),
];

export const hclOf = ({ resource, name, access }: Rule) => `${resource} "${name}" { policy = "${access}" }`;
