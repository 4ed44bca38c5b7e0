/** `runlock config`: the value of each option of a command, and where the value comes from. */
import { withoutUser } from '../../errors.ts';
import type { Command, Option } from 'commander';
import type { Config, Setting } from '../../cli/config/read.ts';
import { parseFlag, usage } from '../../cli/values.ts';
import { PER_GROUP, configOf, fillFromConfig, find, groupsOf, settingFor } from '../../cli/config/apply.ts';
import type { ConfigReport, OptionReport } from './report.ts';
import { register } from '../../cli/command.ts';
import type { Defining, Env } from '../../cli/command.ts';
import {
  addOptions,
  commonOptions,
  environmentText,
  groupsOption,
  keyOf,
  option,
  toCommon,
  variableOf,
  withEnvironment,
} from '../../cli/option.ts';
import type { Values } from '../../cli/option.ts';
import type { Platform } from '../platform.ts';
import type { ConfigAsked } from './run.ts';

export const config = register({
  name: 'config',
  define,
  run: async (asked: ConfigAsked, platform: Platform) => (await import('./run.ts')).run(asked, platform),
});

function define(program: Command, { env, tree }: Defining, done: (asked: ConfigAsked) => void): void {
  const command = program
    .command('config')
    .description('show the value of each option, and where the value comes from')
    .argument('[command]', 'command whose options to show', 'exec');
  addOptions(command, [
    groupsOption('show the values for this group; repeat for several groups', 'default'),
    option('--json', 'print as JSON', parseFlag, false),
    ...commonOptions(),
  ]);
  command.addHelpText('after', CONFIG_HELP);
  command.action(async (name: string) => {
    const values = withEnvironment(command, env);
    const { commands } = await tree();
    const target = commands.find((each) => each.name() === name && !name.startsWith('_'));
    if (!target) throw usage(`unknown command '${name}'; see 'runlock --help'`);
    const report = reportOn(target, command, env);
    const { json } = values as Values & { json: boolean };
    done({ common: toCommon(values), options: Object.freeze({ json, report }) });
  });
}

const CONFIG_HELP = `
The file is TOML. Keys are the long names of options, with underscores. A group's section applies to that group and to the
groups below it; the nearest section wins.

  wait = "30m"
  ok_codes = [0, 213]

  [groups."prod/web"]
  slots = 3

Flags override the environment (RUNLOCK_<OPTION>), which overrides the file. In the file, a group's section overrides
the top.

Examples:
  runlock config
  runlock config -g prod/web
  runlock config status --json`;

/** @param asked the `config` command, with its own flags. */
function reportOn(target: Command, asked: Command, env: Env): ConfigReport {
  for (const { long, name } of given(asked)) {
    const same = find(target, long);
    if (same && long !== '--json') target.setOptionValueWithSource(name, asked.getOptionValue(name), 'cli');
  }
  const config = configOf(asked);
  const groups = groupsOf(target, env, config);
  if (config) fillFromConfig(target, env, config, groups);
  withEnvironment(target, env);
  const options = target.options.filter(({ long, hidden }) => long !== '--config' && !hidden);
  return {
    v: 1,
    command: target.name(),
    groups,
    file: { path: String(asked.getOptionValue('config')), found: config !== undefined },
    options: options.flatMap((each) => reportOption(target, each, { env, config, groups })).map(masked),
  };
}

/** Hides user and password in an agent's address. */
function masked(report: OptionReport): OptionReport {
  const { option, value } = report;
  return option === 'agent' && value !== null ? { ...report, value: withoutUser(value) } : report;
}

function reportOption(target: Command, each: Option, sources: Sources): OptionReport[] {
  const { config, groups } = sources;
  const option = keyOf(each);
  if (groups.length < 2 || !PER_GROUP.has(option)) return [{ option, ...origin(target, each, sources) }];
  const isOpen = target.getOptionValueSource(each.attributeName()) === 'default';
  return groups.map((group) => {
    const setting = isOpen && config ? settingFor(each, [group], config) : undefined;
    return { option, group, ...(setting ? fromFile(setting) : origin(target, each, sources)) };
  });
}

function given(command: Command) {
  const named = command.options.map((each) => ({ long: each.long ?? '', name: each.attributeName() }));
  return named.filter(({ name }) => command.getOptionValueSource(name) === 'cli');
}

interface Sources {
  readonly env: Env;
  readonly config: Config | undefined;
  readonly groups: readonly string[];
}

function origin(
  target: Command,
  each: Option,
  { env, config, groups }: Sources,
): Omit<OptionReport, 'option'> {
  const name = each.attributeName();
  const source = target.getOptionValueSource(name);
  if (source === 'cli') return { value: String(target.getOptionValue(name)), from: 'flag' };
  if (source === 'env')
    return { value: environmentText(each, env) ?? '', from: 'environment', variable: variableOf(each) };
  if (source === 'config') return fromFile(config && settingFor(each, groups, config));
  return byDefault(each);
}

function fromFile(setting: Setting | undefined): Omit<OptionReport, 'option'> {
  const { text = null, ...place } = setting ?? {};
  return { value: text, from: 'file', ...place };
}

function byDefault({
  defaultValue,
  defaultValueDescription,
  description,
}: Option): Omit<OptionReport, 'option'> {
  const [, means] = /\(default: (.+)\)$/.exec(description) ?? [];
  const value = defaultValue === undefined ? null : (defaultValueDescription ?? String(defaultValue));
  return { value, from: 'default', ...(value === null && means !== undefined && { means }) };
}
