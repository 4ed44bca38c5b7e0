// /etc/runlock/config.toml as the Debian package installs it: every option that may stand there, with its default,
// as a comment. A default that is no value (`by tool`) is told in words, beside an example.
import type { Command } from 'commander';
import { keysOf } from '../../src/cli/config/apply.ts';
import { keyOf } from '../../src/cli/option.ts';
import { describeOption } from './pages.ts';

/** Values to show where an option has no default. */
const SAMPLES: Readonly<Record<string, string>> = {
  when: '["state:db/schema=42"]',
  publish: '["db/schema=42"]',
  during: '["db/mode=migrating"]',
  timeout: '"2h"',
  wait_timeout: '"10m"',
  ok_codes: '[0, 213]',
  reboot_codes: '[35, 37]',
  node: '"web01"',
  metrics_file: '"/var/lib/prometheus/node-exporter/runlock.prom"',
  max_held: '"2h"',
  max_wait: '"1h"',
  service: '"api"',
  min_healthy: '2',
  maintenance: '"service"',
  healthy_within: '"2m"',
};

const HEAD = `# Settings for runlock; flags and RUNLOCK_<OPTION> override them. Each line shows the default, or, if the comment gives
# the default, an example. 'runlock config' shows the values in effect and where they come from.
# An error in this file stops every run (exit code 78).
# Generated from the command tree by npm run docs.
`;

const TAIL = `
# A group's section applies to that group and to the groups below it.
#
#[groups."prod/web"]
#slots = 3
#hold = "4h"
`;

export function configExample(program: Command): string {
  const commands = program.commands.filter((command) => !command.name().startsWith('_'));
  const keys = keysOf(commands);
  const seen = new Set<string>();
  const lines = commands.flatMap((command) =>
    command.options.flatMap((option) => {
      const key = keyOf(option);
      if (option.hidden || seen.has(key) || keys.get(key)?.perCall !== false) return [];
      seen.add(key);
      const { about, fallback } = describeOption(option);
      const sample = SAMPLES[key];
      const told = sample === undefined ? '' : ` (default: ${fallback || 'none'})`;
      const value = sample ?? literal(option.isBoolean(), fallback);
      if (value === undefined)
        throw new Error(`scripts/docs/config-example.ts: ${key} has no default; give it a sample`);
      return [``, `# ${about}${told}`, `#${key} = ${value}`];
    }),
  );
  return `${HEAD}${lines.join('\n')}\n${TAIL}`;
}

function literal(isFlag: boolean, fallback: string): string | undefined {
  if (isFlag) return 'false';
  if (fallback === '') return undefined;
  return /^[1-9]\d*$/.test(fallback) ? fallback : JSON.stringify(fallback);
}
