// `npm run structure`: how the source hangs together, in figures that anyone can count again. Prints a Markdown table;
// what is to be reached is said, and never a reason to fail. `--json` prints all of it, with the names behind the figures.
import { readdirSync } from 'node:fs';
import ts from 'typescript';
import { circlesOf, circlesOfFolders, topOf } from './structure/graph.ts';
import { importsOf, readTrees } from './structure/imports.ts';
import { filesOfARun } from './structure/reader.ts';

interface Figure {
  readonly what: string;
  readonly is: number;
  readonly toReach: number;
  /** What was counted. */
  readonly names: readonly string[];
}

const SOURCE = 'src';

const trees = readTrees(SOURCE);
const files = [...trees.keys()];

/** Every node of every file that `pick` says yes to, as `file:line`. */
function places(pick: (node: ts.Node) => boolean): string[] {
  return [...trees].flatMap(([file, tree]) => {
    const found: string[] = [];
    const visit = (node: ts.Node): void => {
      if (pick(node)) found.push(`${file}:${tree.getLineAndCharacterOfPosition(node.getStart()).line + 1}`);
      ts.forEachChild(node, visit);
    };
    visit(tree);
    return found;
  });
}

const imports = importsOf(trees);

/** An object that is spread where it stands: its fields could stand there themselves. */
const isSpreadLiteral = (node: ts.Node) =>
  ts.isSpreadAssignment(node) && ts.isObjectLiteralExpression(node.expression);

/** What is asked to wait for a change past an index is a blocking query. */
function isBlockingQuery(node: ts.Node): boolean {
  if (!ts.isObjectLiteralExpression(node)) return false;
  const names = node.properties.map((property) => property.name?.getText());
  return names.includes('index') && (names.includes('signal') || ts.isCallExpression(node.parent));
}

const TELLS = ['emit', 'log', 'say'];

/** The one folder that makes them: `sentence.ts`, and beside it the two longest, `busy.ts` and `end.ts`. */
const SENTENCES = 'events';

/** A sentence for the log, made where something is told: text with holes in it, given to the log or put into an event. */
function isSentence(node: ts.Node): boolean {
  if (!ts.isCallExpression(node)) return false;
  const called = ts.isPropertyAccessExpression(node.expression) ? node.expression.name : node.expression;
  if (!ts.isIdentifier(called) || !TELLS.includes(called.text)) return false;
  const isMade = (part: ts.Node): boolean =>
    ts.isTemplateExpression(part) || (ts.forEachChild(part, isMade) ?? false);
  return node.arguments.some(isMade);
}

const filesIn = (found: readonly string[]) => [...new Set(found.map((place) => place.replace(/:\d+$/, '')))];

/** Whoever changes what the command takes or prints opens these: its name is in them, and their imports are its own. */
const filesOfFreeze = () => files.filter((file) => /(?:^|\/)freeze/.test(file) && topOf(file) !== 'lock');

async function count(): Promise<Figure[]> {
  const top = [...new Set(files.map((file) => file.split('/')[0] ?? file))];
  const entries = [...top, ...readdirSync(SOURCE).filter((name) => !top.includes(name))];
  const blocking = filesIn(places(isBlockingQuery)).filter((file) => file !== 'consul/watch.ts');
  return [
    figure('entries at the top of src', 20, entries.sort()),
    figure('circles of files', 0, circlesOf(imports)),
    figure('circles of folders', 0, circlesOfFolders(imports)),
    figure('files that a run of `exec` goes through', 30, await filesOfARun()),
    figure('files of freeze, outside of lock', 3, filesOfFreeze()),
    figure('files with blocking queries, besides consul/watch', 0, blocking),
    figure('places that make sentences of the log', 1, [SENTENCES, ...filesIn(places(isSentence))]),
    figure('spreads of literals', 20, places(isSpreadLiteral)),
  ];
}

const figure = (what: string, toReach: number, names: readonly string[]): Figure => ({
  ...{ what, toReach, names },
  is: names.length,
});

function toTable(figures: readonly Figure[]): string {
  const rows = figures.map(
    ({ what, is, toReach }) =>
      `| ${what} | ${is} | at most ${toReach}: ${is <= toReach ? 'reached' : '**not reached**'} |`,
  );
  return ['|  | is | to reach |', '| --- | ---: | --- |', ...rows].join('\n');
}

const figures = await count();
console.log(process.argv.includes('--json') ? JSON.stringify(figures, undefined, 2) : toTable(figures));
