// docs/rights.md, "States and conditions": the rules of each line are enough, each is needed, and doctor names each.
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, describe, expect, test } from 'vitest';
import { succeeded } from '../support/consul-api.ts';
import { addRule, doctorWith, fixesOf, leastRights, printedRights } from '../support/doctor.ts';
import { groupOf } from '../support/group.ts';
import { eventually } from '../support/processes.ts';
import { spawnRunlock } from '../support/program.ts';
import { runlock, startRunlock } from '../support/runlock.ts';
import { stage } from '../support/stage.ts';
import { useAgent } from '../support/use-agent.ts';

const agent = useAgent({ acl: true, name: 'web01' });
beforeAll(async () => {
  const service = { Name: 'web', ID: 'web-1', Check: { TTL: '600s', Status: 'passing' } };
  succeeded(await agent.http('PUT', '/v1/agent/service/register', service), 'registering');
  // What is there is hidden from a token that may not read it, so an empty answer would look right.
  for (const path of ['db/schema', 'db/other', 'other']) await done('state', 'set', path, '42');
  await done('exec', '-g', 'prod/db', '--node', 'db01', '--', 'true');
  await groupOf(agent, 'prod/db').freeze('ops', 'test');
});

const done = async (...words: string[]) => expect((await spawnRunlock(agent, words).ended).status).toBe(0);

const codes = (cell = '') => [...cell.matchAll(/`([^`]+)`/g)].map(([, text = '']) => text);
const lines = printedRights('state-rights')
  .slice(2)
  .map((line) => line.split('|'))
  .flatMap(([, what, rules]) => codes(what).map((text) => ({ text, rules: codes(rules) })));
const commands = lines.filter(({ text }) => text.startsWith('state '));
const conditions = lines.filter(({ text }) => !text.includes(' '));
/** What `exec` and `doctor` are given. */
const options = lines.flatMap(({ text, rules }) => {
  const words = text.split(' ');
  if (words[0] === 'state') return [];
  return [{ text, words: words[0] === 'exec' ? words.slice(1) : ['--when', text], rules }];
});
/** Each rule left out once. */
const withoutEach = (rules: readonly string[]) =>
  rules.map((missing) => ({ missing, rest: rules.filter((rule) => rule !== missing) }));

const withRules = async (rules: readonly string[]) => ({
  env: { ...agent.env, CONSUL_HTTP_TOKEN: await agent.token(rules.join('\n')) },
});

test('the page has every kind of condition, and every action on states', () => {
  expect([...new Set(commands.map(({ text }) => text.split(' ')[1]))].sort()).toEqual(
    ['set', 'get', 'list', 'delete', 'watch', 'prune'].sort(),
  );
  expect(new Set(conditions.map(({ text }) => text.split(':')[0]))).toEqual(
    new Set(['state', 'idle', 'blocked', 'active', 'good', 'frozen', 'healthy', 'agent']),
  );
});

describe('a command', () => {
  test.for(commands)('$text works with exactly what is printed', async ({ text, rules }) => {
    const node = await withRules(rules);
    const words = text.split(' ');
    const command = startRunlock(node, words);
    if (words[1] === 'watch') {
      await eventually(() => expect(command.stdout()).toContain('db/schema'));
      command.signal('SIGINT');
    }
    expect(await command.ended).toMatchObject({ status: 0, stderr: '' });
    // `delete` is one of them.
    await done('state', 'set', 'db/schema', '42');
  });

  test.for(commands)('$text without it exits 77, and names the rule', async ({ text, rules }) => {
    const { status, stdout, stderr } = await runlock(await withRules([]), text.split(' '));
    expect({ status, stdout }).toEqual({ status: 77, stdout: '' });
    expect(stderr).toContain(`the token needs the rule: ${rules[0] ?? ''}`);
  });
});

/** Whether a condition is true is of no interest here. */
const judged = expect.toBeOneOf([0, 75]) as number;

describe('a condition', () => {
  test.for(conditions)('$text can be waited for with exactly what is printed', async ({ text, rules }) => {
    const wait = ['wait', '--until', text, '--timeout', '0'];
    expect(await runlock(await withRules(rules), wait)).toMatchObject({ status: judged });
  });
});

// A run of prod/web has the rules for its own freezes, which are some of those for prod/db.
const more = options.map(({ rules, ...option }) => ({
  ...option,
  rules: rules.filter((rule) => !leastRights.includes(rule.replace('"read"', '"write"'))),
}));

test.for(more)(
  '$text: doctor names each rule that is missing, and exec needs it',
  async ({ words, rules }) => {
    const run = ['exec', '-g', 'prod/web', '-w', '0', ...words, '--', 'echo', 'ran'];
    const all = [...leastRights, ...rules];
    const report = await doctorWith(agent, all, ...words);
    expect(report).toMatchObject({ status: 0, problems: [] });
    for (const rule of rules)
      expect(report.rights).toContain(rule.replace(/ \{ policy = "(\w+)" \}/, ': $1'));
    expect(await runlock(await withRules(all), run)).toMatchObject({ status: judged });
    for (const { missing, rest } of withoutEach(rules)) {
      const few = await doctorWith(agent, [...leastRights, ...rest], ...words);
      expect(few.status).toBe(2);
      expect(fixesOf(few)).toEqual([addRule(missing)]);
      const refused = await runlock(await withRules([...leastRights, ...rest]), run);
      expect(refused).toMatchObject({ status: 77, stdout: '' });
      expect(refused.stderr).toContain(missing);
    }
  },
);

test('a state that is published and waited for needs one rule; read is not enough for it', async () => {
  const both = ['--when', 'state:db/other', '--publish', 'db/schema=42', '--during', 'app/busy=1'];
  const [db, app] = ['db', 'app'].map(
    (folder) => `key_prefix "runlock/.state/${folder}/" { policy = "write" }`,
  );
  const read = db?.replace('write', 'read') ?? '';
  expect(fixesOf(await doctorWith(agent, leastRights, ...both))).toEqual(
    [db, app].map((rule) => addRule(rule ?? '')),
  );
  expect(fixesOf(await doctorWith(agent, [...leastRights, read, app ?? ''], ...both))).toEqual([
    addRule(db ?? ''),
  ]);
  const before = await agent.kv.tree();
  expect(await doctorWith(agent, [...leastRights, db ?? '', app ?? ''], ...both)).toMatchObject({
    status: 0,
  });
  expect(await agent.kv.tree()).toEqual(before);
});

test('each group goes by its own section; what a run may read anyway is not tried again', async () => {
  const file = join(stage().folder, 'config.toml');
  const sections = {
    'prod/web': 'state:db/schema=42',
    'prod/app': 'state:app/version',
    'prod/own': 'not:frozen:prod/own',
    'prod/same': 'idle:prod/web',
  };
  writeFileSync(
    file,
    Object.entries(sections)
      .map(([group, when]) => `[groups."${group}"]\nwhen = "${when}"\n`)
      .join('') + 'publish = ["web/version=1", "web/ready=yes"]\nduring = "mode/same=busy"\n',
  );
  const groups = Object.keys(sections).flatMap((group) => ['-g', group]);
  const prod = 'key_prefix "runlock/prod/" { policy = "write" }';
  const report = await doctorWith(agent, [...leastRights, prod], '--config', file, ...groups);
  expect(fixesOf(report)).toEqual(
    [
      ...['web/" { policy = "write" }', 'mode/" { policy = "write" }'],
      ...['db/" { policy = "read" }', 'app/" { policy = "read" }'],
    ].map((rest) => addRule(`key_prefix "runlock/.state/${rest}`)),
  );
  expect(report.rights.filter((line) => line.endsWith(': read'))).toEqual([]);
});

test('a state in one folder that may be read does not stand for its neighbours', async () => {
  const one = 'key "runlock/.state/db/schema/.value" { policy = "read" }';
  const both = ['--when', 'state:db/schema', '--when', 'state:db/other'];
  const rule = 'key_prefix "runlock/.state/db/" { policy = "read" }';
  expect(await doctorWith(agent, [...leastRights, one], '--when', 'state:db/schema')).toMatchObject({
    status: 0,
  });
  expect(fixesOf(await doctorWith(agent, [...leastRights, one], ...both))).toEqual([addRule(rule)]);
});
