/**
 * The nodes of a soak with agents, and what their files say: five kinds, each of which starts by what the one before it has
 * done. `a` is asked by people; `b` follows a state that `a` publishes, `c` one of `b`; `d` waits for a round of good runs of
 * all `c`; `e` follows a state of `d` and good runs of a node of kind `a`, while a door is open. Pure.
 */
import { GATES } from '../sources.ts';

export const ROLES = ['a', 'b', 'c', 'd', 'e'] as const;
export type Role = (typeof ROLES)[number];

export interface NodePlan {
  readonly name: string;
  readonly role: Role;
  /** Its way to Consul. */
  readonly gate: number;
  /** The conditions of its task `react`; none: it has no such task. */
  readonly on: readonly string[];
}

interface Rules {
  readonly slots: number;
  readonly hold: string;
  /** By path; the first is the home of jobs. */
  readonly groups: readonly string[];
}

const RULES: Readonly<Record<Role, Rules>> = {
  a: { slots: 3, hold: 'forever', groups: ['soak/a'] },
  b: { slots: 2, hold: 'none', groups: ['soak/b'] },
  c: { slots: 3, hold: '5s', groups: ['soak/c'] },
  d: { slots: 2, hold: 'none', groups: ['soak/d'] },
  e: { slots: 2, hold: 'forever', groups: ['soak/e', 'soak/x'] },
};

/** Of `patch`, on every node: another group than that of its other tasks, so that only its turn keeps two runs of it apart. */
const PATCH: Rules = { slots: 4, hold: 'forever', groups: ['soak/p'] };

export const GROUPS: readonly string[] = [...ROLES.map((role) => RULES[role]), PATCH].flatMap(
  ({ groups }) => groups,
);

/** The group that has the jobs of this task. */
export const homeOf = ({ role, task }: { readonly role: Role; readonly task: string }): string =>
  (task === 'patch' ? PATCH : RULES[role]).groups[0] ?? '';

export const DOOR = 'soak/door';
export const REBOOT_CODE = 194;

export function planNodes(count: number): readonly NodePlan[] {
  const each = Math.max(1, Math.floor(count / ROLES.length));
  const nameOf = (role: number, i: number) => `n${String(role * each + i + 1).padStart(2, '0')}`;
  return ROLES.flatMap((role, at) =>
    Array.from({ length: each }, (_, i) => {
      const before = nameOf(at - 1, i);
      const states = (...paths: string[]) => paths.map((path) => `state:soak/${path}`);
      const on: Readonly<Record<Role, readonly string[]>> = {
        a: [],
        b: states(`a/${before}`, `in/${i % 2}`),
        c: states(`b/${before}`),
        d: ['good:*@soak/c'],
        e: [...states(`d/${before}`), `good:${nameOf(0, i)}@soak/a`],
      };
      return { name: nameOf(at, i), role, gate: (at * each + i) % GATES, on: on[role] };
    }),
  );
}

export const nodesOf = (nodes: readonly NodePlan[], role: Role): readonly NodePlan[] =>
  nodes.filter((node) => node.role === role);

/** Where a run of this node says what it has done, if it is one that publishes. */
export const publishedBy = ({ role, name }: NodePlan): string => `soak/${role}/${name}`;
export const duringOf = ({ name }: NodePlan): string => `soak/busy/${name}`;

/** The task that publishes: what people ask for at the head of the chain, what changes start behind it. */
export const publishing = ({ role }: NodePlan): 'deploy' | 'react' => (role === 'a' ? 'deploy' : 'react');

/** The node's task files, by name. `script`: of the commands. `value`: what its runs publish. */
export function taskFiles(node: NodePlan, { script, value }: { script: string; value: string }) {
  const linesOf = ({ slots, hold, groups }: Rules) => [
    ...[`group = "${groups.join(',')}"`, `slots = ${slots}`, `hold = "${hold}"`],
  ];
  const common = linesOf(RULES[node.role]);
  const words = (task: string, ...more: string[]) =>
    `command = ${JSON.stringify(['/bin/bash', script, task, ...more])}`;
  const publish = `publish = "${publishedBy(node)}=${value}"`;
  const asked = [
    'params.beats = { match = "[0-9]{1,3}", default = "3" }',
    'params.code = { match = "[0-9]{1,3}", default = "0" }',
    'allow = ["ops", "ci"]',
  ];
  const deploy = [
    words('deploy', '{beats}', '{code}'),
    ...asked,
    ...common,
    `during = "${duringOf(node)}=yes"`,
    ...(publishing(node) === 'deploy' ? [publish] : []),
  ];
  const patch = [
    words('patch', '{beats}', '{code}'),
    ...asked,
    ...linesOf(PATCH),
    `reboot_codes = [${REBOOT_CODE}]`,
  ];
  const react = [
    words('react', '3', '0'),
    ...common,
    publish,
    `on = ${JSON.stringify(node.on)}`,
    'triggers_per_hour = 3600',
    ...(node.role === 'c' ? ['debounce = "300ms"'] : []),
    ...(node.role === 'e' ? [`when = "state:${DOOR}=open"`] : []),
  ];
  const files = {
    'deploy.toml': deploy,
    'patch.toml': patch,
    ...(node.on.length > 0 && { 'react.toml': react }),
  };
  return Object.entries(files).map(([name, lines]) => [name, `${lines.join('\n')}\n`] as const);
}
