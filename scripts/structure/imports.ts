// Which files of a folder import which.
import { readFileSync, readdirSync } from 'node:fs';
import { dirname, join, posix } from 'node:path';
import ts from 'typescript';
import type { Imports } from './graph.ts';

/** Every TypeScript file below `folder`, by its path there. */
export function readTrees(folder: string): Map<string, ts.SourceFile> {
  const files = readdirSync(folder, { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('.ts'))
    .map((name) => posix.normalize(name))
    .sort();
  return new Map(
    files.map((file) => {
      const text = readFileSync(join(folder, file), 'utf8');
      return [file, ts.createSourceFile(file, text, ts.ScriptTarget.Latest, true)] as const;
    }),
  );
}

export function importsOf(trees: Map<string, ts.SourceFile>): Imports {
  return new Map([...trees].map(([file, tree]) => [file, importsOfOne(tree)]));
}

/** Types too: who has to know of whom is the question, not what is loaded. */
function importsOfOne(tree: ts.SourceFile): string[] {
  const named: string[] = [];
  const visit = (node: ts.Node): void => {
    const from = (ts.isImportDeclaration(node) || ts.isExportDeclaration(node)) && node.moduleSpecifier;
    const loaded =
      ts.isCallExpression(node) && node.expression.kind === ts.SyntaxKind.ImportKeyword && node.arguments[0];
    const name = from || loaded;
    if (name && ts.isStringLiteral(name) && name.text.startsWith('.'))
      named.push(posix.join(dirname(tree.fileName), name.text));
    ts.forEachChild(node, visit);
  };
  visit(tree);
  return [...new Set(named)];
}
