/** `runlock policy`: the rules of a role → stdout. */
import type { Asked } from '../../cli/command.ts';
import { quote } from '../../text/suggested-command.ts';
import type { Platform } from '../platform.ts';
import { print } from '../print.ts';
import { openLog } from '../with-consul.ts';
import { hclOf, rulesOf } from './rules.ts';
import type { Folder } from '../task/tasks.ts';
import type { PolicyRequest } from './rules.ts';
import { withTasks } from './of-tasks.ts';

export interface PolicyOptions extends PolicyRequest {
  /** With `agent`: whose groups, principals and states count, too. */
  readonly tasks?: Omit<Folder, 'uid'>;
  readonly json: boolean;
  /** Print the commands that create it. */
  readonly commands: boolean;
}

export async function run({ common, options }: Asked<PolicyOptions>, platform: Platform): Promise<number> {
  openLog(platform, common);
  const { json, commands, role, tasks } = options;
  const request = tasks ? await withTasks(options, { ...tasks, uid: platform.uid }) : options;
  const rules = rulesOf(request);
  const hcl = rules.map((rule) => `${hclOf(rule)}\n`).join('');
  const text = () => (commands ? commandsFor(nameOf(request), hcl) : hcl);
  await print(platform, { json, data: { role, rules }, text });
  return 0;
}

/** A policy's name in Consul: letters, digits, '-' and '_', 128 at most. */
function nameOf({ role, groups, node, principals }: PolicyRequest): string {
  const parts = [
    'runlock',
    role,
    ...(role === 'agent' ? [] : principals),
    ...(node === undefined ? groups.map(({ group }) => group || 'all') : [node]),
  ];
  return parts
    .join('-')
    .replaceAll(/[^A-Za-z0-9_-]/g, '-')
    .slice(0, 128);
}

/** For a shell; consul(1) asks the agent that CONSUL_HTTP_ADDR names, with a token that may write ACLs. */
function commandsFor(name: string, hcl: string): string {
  return [
    `consul acl policy create -name ${quote(name)} -rules - <<'EOF'`,
    `${hcl}EOF`,
    `consul acl token create -description ${quote(name)} -policy-name ${quote(name)}`,
    '',
  ].join('\n');
}
