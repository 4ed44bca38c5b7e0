// What docs/rights.md prints, and `doctor` run with a token that has some of it.
import { readFileSync } from 'node:fs';
import { expect } from 'vitest';
import type { Agent } from './consul.ts';
import { runlock } from './runlock.ts';

export interface Check {
  readonly check: string;
  readonly level: string;
  readonly found: string;
  readonly fix?: string;
}

const page = readFileSync(new URL('../../docs/rights.md', import.meta.url), 'utf8');

/** What is generated in the page between the marker of this name and its end, line by line. */
export function printedRights(name: string): readonly string[] {
  const [, block = ''] = new RegExp(`<!-- ${name}.*?-->\n(.*?)<!-- end -->`, 's').exec(page) ?? [];
  const lines = block
    .trim()
    .split('\n')
    .filter((line) => !line.startsWith('```'));
  return lines.map((line) => line.replace(/ +#.*$/, '').trim());
}

/** The policy of a node that runs in prod/web, with what `doctor` reads of Consul itself. */
export const leastRights = [...printedRights('least-rights'), 'agent_prefix "" { policy = "read" }'];

/** `doctor` for prod/web with exactly these rules. */
export async function doctorWith(agent: Agent, rules: readonly string[], ...args: string[]) {
  const env = { ...agent.env, CONSUL_HTTP_TOKEN: await agent.token(rules.join('\n')) };
  const { status, stdout, stderr } = await runlock({ env }, ['doctor', '--json', '-g', 'prod/web', ...args]);
  expect(stderr).toBe('');
  const { checks } = JSON.parse(stdout) as { checks: readonly Check[] };
  const of = (level: string) => checks.filter((check) => check.level === level);
  const rights = checks.filter(({ check }) => check === 'rights').map(({ found }) => found);
  return { status, checks, rights, problems: of('problem'), notes: of('note') };
}

export const addRule = (rule: string) => `add to the token's policy: ${rule}`;

export const fixesOf = ({ problems }: { readonly problems: readonly Check[] }) =>
  problems.map(({ fix }) => fix);
